//! `imagegate serve`, `imagegate sandbox`, `imagegate migrate`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use imagegate::accounts::FirstKeys;
use imagegate::config::Config;
use imagegate::{sandbox, startup, telemetry};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::{Failure, Output, print};

/// The signal of a file that grows beyond its limit, on Linux.
const SIGXFSZ: i32 = 25;

/// Runs the gateway until it is told to stop.
pub fn serve(config: Config) -> Result<(), Failure> {
    let telemetry = telemetry::start(&config.log)?;
    // Jobs have a runtime of their own: a task on a web worker dies with that worker.
    let jobs = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(job_threads())
        .thread_name("jobs")
        .enable_all()
        .build()?;
    let outcome = actix_web::rt::System::new().block_on(async {
        // Taken by nobody: where a limit of file sizes (`ulimit -f`) is reached, the write fails, and not the process.
        let _file_too_large = signal(SignalKind::from_raw(SIGXFSZ))?;
        // Before anybody is told that we listen: until then a hangup would end the process.
        let mut hangup = signal(SignalKind::hangup())?;
        let running = startup::start(config, jobs.handle().clone()).await?;
        info!(address = %running.address, upstream = running.upstream.name(), "imagegate is listening");
        print(&welcome(running.address, &running.first_keys)?)?;
        let stopper = running.stopper();
        let reloader = running.reloader.clone();
        actix_web::rt::spawn(async move {
            while hangup.recv().await.is_some() {
                reloader.reload().await;
            }
        });
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        actix_web::rt::spawn(async move {
            // Somebody at the keyboard does not wait for load balancers.
            tokio::select! {
                _ = terminate.recv() => {
                    info!("told to stop; finishing what runs");
                    stopper.gently().await;
                }
                _ = interrupt.recv() => {
                    info!("interrupted; finishing what runs");
                    stopper.at_once().await;
                }
            }
        });
        running.run().await?;
        Ok::<(), Failure>(())
    });
    jobs.shutdown_background();
    telemetry.end();
    outcome
}

/// Half as many as there are cores: the other half of a request is the web workers'. More of them wake each other for
/// work that one would have done meanwhile (`docs/performance.md`).
fn job_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// Where the first keys are written if nobody is at a terminal to read them: what is printed there ends in a log.
const FIRST_KEYS: &str = "data/first-keys";

/// The keys of a new database, once, with a request that works when it is pasted; nothing if there are none. Where the
/// standard output is no terminal, the keys are in a file that only its owner can read, and the text has its path.
fn welcome(address: SocketAddr, keys: &FirstKeys) -> Result<String, Failure> {
    let mut text = String::new();
    if keys.admin.is_none() && keys.project.is_none() {
        return Ok(text);
    }
    let both = [("admin_key", keys.admin.as_ref()), ("project_key", keys.project.as_ref())];
    let [admin, project] = if std::io::stdout().is_terminal() {
        text.push_str("\nThe first keys of this database. They are shown only this once:\n\n");
        for (name, key) in [("admin key  ", &keys.admin), ("project key", &keys.project)] {
            if let Some(key) = key {
                let _ = writeln!(text, "  {name}  {}", key.expose());
            }
        }
        both.map(|(_, key)| key.map(|key| key.expose().to_owned()))
    } else {
        let path = write_first_keys(keys)?;
        let path = path.display();
        let _ = writeln!(
            text,
            "\nThe first keys of this database are in {path}, for you alone. Keep them elsewhere and delete it."
        );
        both.map(|(name, key)| key.map(|_| format!("$(sed -n 's/^{name}=//p' '{path}')")))
    };
    if let Some(key) = &project {
        let _ = write!(
            text,
            "\nMake an image:\n\n\
             curl http://{address}/v1/images/generations -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \
             -d '{{\"model\": \"flux-realism\", \"prompt\": \"A T-Rex relaxing on a beach\", \
             \"image_size\": {{\"width\": 1472, \"height\": 512}}}}'\n",
        );
    }
    if let Some(key) = &admin {
        let _ = write!(
            text,
            "\nSee what it cost:\n\ncurl http://{address}/admin/v1/generations -H \"Authorization: Bearer {key}\"\n",
        );
    }
    let _ =
        write!(text, "\nThe documentation is at http://{address}/docs, the console at http://{address}/console\n\n");
    Ok(text)
}

/// Writes the first keys, a line each, to a file that only its owner can read; its full path.
fn write_first_keys(keys: &FirstKeys) -> Result<PathBuf, Failure> {
    let mut lines = String::new();
    for (name, key) in [("admin_key", &keys.admin), ("project_key", &keys.project)] {
        if let Some(key) = key {
            let _ = writeln!(lines, "{name}={}", key.expose());
        }
    }
    let path = std::path::absolute(FIRST_KEYS)?;
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    Ok(path)
}

/// Runs only the stand-in for fal until it is told to stop.
pub fn sandbox(config: &Config) -> Result<(), Failure> {
    telemetry::start(&config.log)?;
    let (clock, ids) = startup::clock_and_ids();
    let settings = sandbox::Settings {
        bind: config.sandbox.bind,
        delay: config.sandbox.delay,
        public_files: config.http.public_url.clone(),
        ..sandbox::Settings::default()
    };
    let running = sandbox::start(settings, clock, ids)?;
    print(&format!(
        "The stand-in for fal is listening. Any key will do.\n\
         \n\
         export FAL_QUEUE_URL={queue} FAL_RUN_URL={run} FAL_REST_URL={rest} FAL_KEY=sandbox:sandbox\n",
        queue = running.queue_url(),
        run = running.run_url(),
        rest = running.rest_url(),
    ))?;
    super::block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        running.stop().await;
        Ok(())
    })
}

/// Applies the migrations.
pub async fn migrate(config: &Config, output: Output) -> Result<(), Failure> {
    startup::await_store(config).await?;
    output.say(&json!({"status": "migrated"}), "The database has the present form.")
}
