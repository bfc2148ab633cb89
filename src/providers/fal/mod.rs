//! fal.ai.

pub mod translate;
