//! The gateway from outside: the real binary over HTTP, on both databases, against the stand-in for fal.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

mod support;

mod books;
mod chains;
mod document;
mod faces;
mod failures;
mod hooks;
mod images;
mod inputs;
mod keys;
mod leaving;
mod limits;
mod recovery;
mod start;
mod submits;
