//! fal.ai: its queue, its words, its errors. Facts are from fal's public client sources and documents.

mod billing;
mod breaker;
mod client;
mod failure;
mod hooks;
mod keys;
mod payloads;
mod platform;
mod queue;
mod stream;
mod submit;
pub mod translate;
mod uploads;
mod wire;

pub use billing::Billing;
pub use client::{Fal, FalError, Settings};
pub use payloads::Payloads;
pub use uploads::UPLOADED_ABOVE;
