//! The gateway from outside: the real binary over HTTP, on both databases, against the stand-in for fal.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

#[path = "../common/authority.rs"]
mod authority;
mod postgres;
mod receiver;
mod support;

mod account;
mod admin;
mod aiml;
mod away;
mod books;
mod catalogue;
mod chains;
mod clients;
mod compatible;
mod console;
mod disk;
mod document;
mod edits;
mod events;
mod examples;
mod faces;
mod failures;
mod fal;
mod files;
mod generated;
mod hooks;
mod images;
mod inputs;
mod keys;
mod leaving;
mod ledger;
mod limits;
mod metrics;
mod operations;
mod pooler;
mod readme;
mod recovery;
mod replicas;
mod resending;
mod sdk;
mod soak;
mod spending;
mod standing;
mod start;
mod stream;
mod submits;
mod terminal;
mod traces;
mod webhooks;
