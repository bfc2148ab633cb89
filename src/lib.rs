//! imagegate: one gateway for image generation.
//!
//! The rooms, top floor first; arrows run down only (`tests/house.rs` checks it).

pub mod startup;

pub mod config;

pub mod console;

pub mod admin;

pub mod api;

pub mod gateway;

pub mod providers;

pub mod storage;

pub mod sandbox;

pub mod ledger;

pub mod accounts;

pub mod webhooks;

pub mod catalogue;

pub mod store;

pub mod http;

pub mod telemetry;

pub mod meters;

pub mod traces;

pub mod domain;
