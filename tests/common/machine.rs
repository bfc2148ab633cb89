//! What goes wrong with a gateway's machine: its disk is full, its clock is off.

use std::process::Command;

use crate::support::Start;

/// Lets no file of a process grow beyond `bytes`, or any if `unlimited`: a full disk for one process, without a disk.
/// Whether the process was still there.
pub fn limit_files(process: u32, bytes: &str) -> bool {
    let limit = format!("--fsize={bytes}:unlimited");
    let output = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).output();
    output.unwrap().status.success()
}

/// Debian's libfaketime.
pub fn faketime() -> String {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(!path.is_empty(), "libfaketime is missing, so this cannot be tried: run ./test.sh");
    path
}

/// A gateway whose machine's clock is off by some seconds.
pub fn clock_off(start: Start<'_>, seconds: i64) -> Start<'_> {
    // Only the time of day is off; durations are as they are.
    start
        .with("LD_PRELOAD", &faketime())
        .with("FAKETIME", &format!("{seconds:+}s"))
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}
