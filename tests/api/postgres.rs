//! A PostgreSQL server of a test's own, to be stopped, paused and started again.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::free_port;

/// A server on a port of its own; stopped and removed when dropped.
pub struct PrivatePostgres {
    folder: TempDir,
    port: u16,
    settings: Vec<(&'static str, String)>,
}

/// Where Debian puts PostgreSQL's programs; the newest.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.pop().unwrap().join("bin").join(name)
}

pub fn is_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0"
}

/// As the user `postgres` where we are root: PostgreSQL refuses to run as root.
fn run(name: &str, arguments: &[&str], settings: &[(&'static str, String)]) {
    assert!(succeeds(name, arguments, settings), "{name} {arguments:?} failed");
}

fn succeeds(name: &str, arguments: &[&str], settings: &[(&'static str, String)]) -> bool {
    let program = program(name);
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let status = command
        .args(arguments)
        .envs(settings.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    status.status().unwrap().success()
}

impl PrivatePostgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A folder of the server's own, and a port.
    fn place(settings: &[(&'static str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let done = Command::new("chown").arg("postgres").arg(folder.path()).status().unwrap();
            assert!(done.success());
        }
        Self { folder, port: free_port(), settings: settings.to_vec() }
    }

    /// A standby that streams from this server.
    pub fn standby(&self) -> Self {
        let standby = Self::place(&[]);
        let (port, data) = (self.port.to_string(), standby.data());
        run(
            "pg_basebackup",
            &["-h", "127.0.0.1", "-p", &port, "-U", "imagegate", "-D", &data, "-R", "-X", "stream", "-c", "fast"],
            &[],
        );
        standby.start_again();
        standby
    }

    /// Makes a standby the server that is written to.
    pub fn promote(&self) {
        run("pg_ctl", &["-D", &self.data(), "-w", "promote"], &[]);
    }

    /// Where it listens.
    pub fn place_name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// With these variables in its environment.
    pub fn start_with(settings: &[(&'static str, String)]) -> Self {
        let mut server = Self::place(settings);
        run("initdb", &["-D", &server.data(), "-U", "imagegate", "-A", "trust", "-E", "UTF8", "--no-sync"], &[]);
        // Another test may have taken the port meanwhile.
        for _ in 0..5 {
            if server.starts() {
                return server;
            }
            server.port = free_port();
        }
        server.start_again();
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// The address of its first database.
    pub fn url(&self) -> String {
        format!("postgres://imagegate@127.0.0.1:{}/postgres", self.port)
    }

    pub fn start_again(&self) {
        let has_started = (0..10).any(|_| self.starts());
        assert!(has_started, "{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
    }

    fn starts(&self) -> bool {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -k {} -c max_connections=200",
            self.port,
            self.folder.path().display()
        );
        let log = self.folder.path().join("log").display().to_string();
        succeeds("pg_ctl", &["-D", &self.data(), "-w", "-l", &log, "-o", &options, "start"], &self.settings)
    }

    /// As a crash would: nobody is asked to finish.
    pub fn stop(&self) {
        run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"], &[]);
    }

    /// Every process of the server stands still, connections stay open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let Ok(file) = std::fs::read_to_string(format!("{}/postmaster.pid", self.data())) else { return };
        let main = file.lines().next().unwrap().to_owned();
        // Children that come up meanwhile belong to a parent that stands still already.
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
        for process in std::iter::once(main.as_str()).chain(children.split_whitespace()) {
            let _ = Command::new("kill").args([signal, process]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.go_on();
        let data = self.data();
        if std::path::Path::new(&format!("{data}/postmaster.pid")).exists() {
            self.stop();
        }
    }
}
