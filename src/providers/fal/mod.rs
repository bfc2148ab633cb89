//! fal.ai: its queue, its words, its errors. Facts are from fal's public client sources and documents.

mod client;
mod failure;
pub mod translate;
mod wire;

pub use client::{Fal, FalError, Settings};
