//! The gateway from outside: the real binary over HTTP, on both databases, against the stand-in for fal.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

#[path = "../common/authority.rs"]
mod authority;
#[path = "../common/machine.rs"]
mod machine;
mod postgres;
#[path = "../common/proxy.rs"]
#[expect(dead_code, reason = "shared with the chaos test")]
mod proxy;
#[path = "../common/raw.rs"]
mod raw;
mod receiver;
mod support;

mod account;
mod adapting;
mod admin;
mod aiml;
mod aliases;
mod attacks;
mod audited;
mod authorization;
mod away;
mod books;
mod catalogue;
mod chains;
mod client_bodies;
mod client_table;
mod clients;
mod clocks;
mod commits;
mod console;
mod disk;
mod document;
mod edits;
mod empty_values;
mod events;
mod examples;
mod faces;
mod failures;
mod fal;
mod files;
mod foreign;
mod generated;
mod gpt_images;
mod hardening;
mod hooks;
mod images;
mod inputs;
mod keys;
mod leaving;
mod ledger;
mod limits;
mod memory;
mod metrics;
mod operations;
mod pauses;
mod permits;
mod pooler;
mod privacy;
mod quoted;
mod readme;
mod recovery;
mod replicas;
mod resending;
mod sdk;
mod soak;
mod spending;
mod standby;
mod standing;
mod start;
mod stream;
mod submits;
mod terminal;
mod traces;
mod uploads;
mod webhooks;
