//! The gateway from outside: the real binary over HTTP, on both databases, against the stand-in for fal.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

mod postgres;
mod receiver;
mod support;

mod account;
mod admin;
mod away;
mod books;
mod catalogue;
mod chains;
mod console;
mod document;
mod edits;
mod events;
mod faces;
mod failures;
mod hooks;
mod images;
mod inputs;
mod keys;
mod leaving;
mod ledger;
mod limits;
mod metrics;
mod operations;
mod readme;
mod recovery;
mod replicas;
mod resending;
mod sdk;
mod soak;
mod spending;
mod start;
mod stream;
mod submits;
mod terminal;
mod traces;
mod webhooks;
