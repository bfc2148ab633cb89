//! What `./test.sh` has installed, and clients of others that run unchanged.

use std::process::Output;

use serde_json::{Value, json};

/// What is told to the tests from outside, if it is.
#[expect(clippy::disallowed_methods, reason = "tests learn of their tools and their length from their caller")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where a tool or a server of the tests is.
pub fn tool(name: &str) -> String {
    setting(name).unwrap_or_else(|| panic!("{name} is not set, so this cannot be tried: run ./test.sh"))
}

/// A program of `tests/clients`.
pub fn client_file(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The last line of a client's output, which must be JSON; `log` is what else to show where the client fails.
pub fn last_line(output: &Output, log: impl FnOnce() -> String) -> Value {
    let (told, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{faults}\n{}", log());
    serde_json::from_str(told.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{told}\n{faults}"))
}

/// What `fal_client_python.py` sees of fal, and must see of all that stands in for it.
pub fn seen_by_fals_python_client() -> Value {
    let size = json!([[512, 512]]);
    json!({
        "run": size,
        "events": ["Completed", "InProgress", "Queued"],
        "queue": size,
        "seed": 7,
        "status": "Completed",
        "again": size,
        "subscribe": size,
        "enqueued": 1,
        "cancelled": 499,
        "invalid": [422, ["body", "guidance_scale"], "less_than_equal"],
        "unknown": 404,
        "stream": [true, size],
        "async": size,
    })
}
