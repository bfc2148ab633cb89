//! imagegate: one gateway for image generation.
//!
//! The rooms, top floor first; arrows run down only (`tests/house.rs` checks it).

pub mod domain;
pub mod sandbox;
