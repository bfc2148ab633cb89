//! imagegate: one gateway for image generation.
//!
//! The rooms, top floor first; arrows run down only (`tests/house.rs` checks it).

pub mod accounts;
pub mod catalogue;
pub mod config;
pub mod domain;
pub mod http;
pub mod ledger;
pub mod providers;
pub mod sandbox;
pub mod store;
