//! fal's official clients run against the stand-in unchanged: the proof that it is faithful.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use imagegate::domain::{SystemClock, SystemIds};
use imagegate::sandbox::{Running, Settings, start};
use serde_json::{Value, json};

use crate::authority::authority;
use crate::tools::{client_file, last_line, seen_by_fals_python_client, tool};

fn seen_by(mut command: Command) -> Value {
    last_line(&command.stdin(Stdio::null()).output().unwrap(), String::new)
}

fn sandbox(tls: Option<rustls::ServerConfig>) -> Running {
    let run_bind = Some("127.0.0.1:0".parse().unwrap());
    let settings = Settings { run_bind, delay: Duration::from_millis(300), tls, ..Settings::default() };
    start(settings, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap()
}

#[test]
fn fals_python_client_runs_against_it_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let [file, ..] = authority.files(folder.path());
    let fal = sandbox(Some(authority.server_config()));
    let host = |url: String| url.strip_prefix("https://").unwrap().to_owned();
    let mut command = Command::new(tool("IMAGEGATE_TEST_PYTHON"));
    command
        .arg(client_file("fal_client_python.py"))
        .env_clear()
        .env("FAL_RUN_HOST", host(fal.run_url()))
        .env("FAL_QUEUE_RUN_HOST", host(fal.queue_url()))
        .env("FAL_KEY", "id:secret")
        .env("SSL_CERT_FILE", file);
    assert_eq!(seen_by(command), seen_by_fals_python_client());
}

#[test]
fn fals_javascript_client_runs_against_it_unchanged_through_its_proxy_setting() {
    let fal = sandbox(None);
    let mut command = Command::new("node");
    command
        .arg(client_file("fal_client_javascript.cjs"))
        .env("NODE_PATH", tool("IMAGEGATE_TEST_NODE_MODULES"))
        .env("QUEUE_URL", fal.queue_url())
        .env("RUN_URL", fal.run_url())
        .env("REST_URL", fal.rest_url());
    let size = json!([[512, 512]]);
    assert_eq!(
        seen_by(command),
        json!({
            "run": size,
            "requestId": true,
            "subscribe": size,
            "seed": 7,
            "statuses": ["COMPLETED", "IN_PROGRESS", "IN_QUEUE"],
            "watched": size,
            "result": size,
            "cancelled": 499,
            "invalid": [422, ["body", "guidance_scale"], "less_than_equal"],
            "stream": [true, size],
            "uploaded": "some bytes",
        })
    );
}
