//! imagegate: one gateway for image generation.
//!
//! The rooms, top floor first; arrows run down only (`tests/house.rs` checks it).

pub mod accounts;
pub mod domain;
pub mod ledger;
pub mod store;
