//! fal as the stand-in speaks it, over HTTP.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fal;
mod hosts;
mod misbehaviour;
mod queue;
mod webhooks;
