//! fal as the stand-in speaks it, over HTTP.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/authority.rs"]
mod authority;
mod clients;
mod fal;
mod hosts;
mod misbehaviour;
mod queue;
#[path = "../common/tools.rs"]
mod tools;
mod webhooks;
