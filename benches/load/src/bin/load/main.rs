//! Drives and measures: each subject under several loads, then one table of what it took.
//!
//! `load --gateway FILE --server postgres://USER@HOST:PORT/ --postmaster PID --work DIR [--full] [--rows a,b]
//!  [--extras] [--quick] [--rounds N] [--seconds N] [--load CLIENTS:MILLISECONDS] [--soak MINUTES]`. `bench.sh` builds everything, starts PostgreSQL and calls this.
//!
//! Processor time is user + system of the process and all below it, divided by the good answers: it hardly depends on
//! who else uses the machine. Latencies do; compare them within one run only.

mod client;
mod machine;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use client::{Script, Tally};
use subject::{Bench, Kind, Subject};

type Fault = Box<dyn std::error::Error>;

/// What was asked for.
struct Arguments {
    gateway: PathBuf,
    server: String,
    postmaster: u32,
    work: PathBuf,
    full: bool,
    /// Whether the loads of the tables are run; overload, large answers and waiting requests.
    tables: bool,
    extras: bool,
    rows: Vec<Kind>,
    rounds: u32,
    seconds: u64,
    soak: Option<u64>,
    /// One load instead of those of the tables.
    load: Option<(usize, u64)>,
}

impl Arguments {
    fn read() -> Result<Self, Fault> {
        let mut read = Self {
            gateway: PathBuf::new(),
            server: String::new(),
            postmaster: 0,
            work: PathBuf::new(),
            full: false,
            tables: true,
            extras: false,
            rows: Vec::new(),
            rounds: 1,
            seconds: 4,
            soak: None,
            load: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--full" => (read.full, read.extras) = (true, true),
                "--extras" => (read.tables, read.extras) = (false, true),
                "--quick" => read.seconds = 2,
                _ => read.valued(&name, arguments.next().ok_or_else(|| format!("`{name}` wants a value"))?)?,
            }
        }
        if read.rows.is_empty() {
            let quick = [Kind::Direct, Kind::FloorWithoutBooks, Kind::FloorOneCall, Kind::Floor, Kind::Gateway];
            read.rows = if read.full { Kind::ALL.map(|(_, kind)| kind).to_vec() } else { quick.to_vec() };
        }
        Ok(read)
    }

    fn valued(&mut self, name: &str, value: String) -> Result<(), Fault> {
        match name {
            "--gateway" => self.gateway = value.into(),
            "--server" => self.server = value,
            "--postmaster" => self.postmaster = value.parse()?,
            "--work" => self.work = value.into(),
            "--rounds" => self.rounds = value.parse()?,
            "--seconds" => self.seconds = value.parse()?,
            "--soak" => self.soak = Some(value.parse()?),
            "--load" => {
                let (clients, delay) = value.split_once(':').ok_or("a load is CLIENTS:MILLISECONDS")?;
                self.load = Some((clients.parse()?, delay.parse()?));
            }
            "--rows" => {
                for name in value.split(',') {
                    let kind = Kind::ALL.iter().find(|(known, _)| *known == name);
                    self.rows.push(kind.ok_or_else(|| format!("there is no row `{name}`"))?.1);
                }
            }
            _ => return Err(format!("`{name}` is not known").into()),
        }
        Ok(())
    }

    /// Clients, and milliseconds that an image takes.
    fn loads(&self) -> Vec<(usize, u64)> {
        if let Some(load) = self.load {
            return vec![load];
        }
        match self.full {
            false => vec![(16, 0), (64, 0), (64, 20)],
            true => [1, 16, 64, 256, 1000].into_iter().flat_map(|clients| [(clients, 0), (clients, 20)]).collect(),
        }
    }
}

/// One subject under one load.
struct Cell {
    kind: Kind,
    clients: usize,
    delay: u64,
    rate: f64,
    median: f64,
    p99: f64,
    /// Processor milliseconds an answer: the subject's own, PostgreSQL's.
    own: f64,
    database: f64,
    /// What others took of the machine meanwhile, as a share.
    others: f64,
    faults: u64,
}

/// One life of a subject.
struct Life {
    kind: Kind,
    cold_start: Option<Duration>,
    /// MiB at the most, up to 64 clients and over all loads.
    peak_at_64: f64,
    peak: f64,
    /// Good answers given, and generations charged.
    answered: u64,
    charged: Option<u64>,
    /// What an answer adds to the database, in bytes.
    growth: f64,
}

/// Runs programs side by side with what they are measured by.
struct Driver {
    bench: Bench,
    postmaster: u32,
    fal: std::process::Child,
    seconds: u64,
}

impl Driver {
    async fn set_fal(&self, query: &str) -> Result<(), Fault> {
        let path = format!("/__set?{query}");
        let mut connection = client::Connection::open(&self.bench.fal).await?;
        match connection.ask(&client::request("POST", &path, &self.bench.fal, "", "")).await? {
            (200, _) => Ok(()),
            (status, _) => Err(format!("the stand-in answers {status} to {path}").into()),
        }
    }

    async fn cell(&self, subject: &Subject, clients: usize, delay: u64) -> Result<(Cell, Tally), Fault> {
        self.set_fal(&format!("delay_ms={delay}")).await?;
        let script = self.bench.script(subject, false);
        let seconds = |pids: &[u32]| pids.iter().copied().map(machine::processor_seconds).sum::<f64>();
        let postgres: Vec<u32> = subject.kind.uses_postgres().then_some(self.postmaster).into_iter().collect();
        let all = || (seconds(&subject.pids()), seconds(&postgres), seconds(&[std::process::id()]));
        let (own, database, ours) = all();
        let busy = machine::busy_seconds();
        let tally = client::repeat(&subject.addresses, &script, clients, Duration::from_secs(self.seconds)).await;
        let (busy, after) = (machine::busy_seconds() - busy, all());
        let (own, database, ours) = (after.0 - own, after.1 - database, after.2 - ours);
        let each = 1000.0 / (tally.good().max(1) as f64);
        let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        // The load generator's own share includes everything below it: the stand-in and the subject.
        let cell = Cell {
            kind: subject.kind,
            clients,
            delay,
            rate: tally.rate(),
            median: tally.quantile(0.5),
            p99: tally.quantile(0.99),
            own: own * each,
            database: database * each,
            others: ((busy - ours - database) / tally.elapsed.as_secs_f64() / processors).max(0.0),
            faults: tally.broken
                + tally.statuses.iter().filter(|(status, _)| **status > 201).map(|(_, n)| n).sum::<u64>(),
        };
        println!(
            "{:<20} {:>5} clients, {:>2} ms: {:>7.0}/s, {:>8.2} ms median, {:>8.2} ms p99, {:.3} + {:.3} ms CPU, others {:>3.0} %, {} faults",
            cell.kind.name(),
            clients,
            delay,
            cell.rate,
            cell.median,
            cell.p99,
            cell.own,
            cell.database,
            cell.others * 100.0,
            cell.faults,
        );
        if cell.faults > 0 {
            println!("  statuses {:?}, {} broken connections", tally.statuses, tally.broken);
        }
        Ok((cell, tally))
    }

    async fn life(&self, kind: Kind, loads: &[(usize, u64)], cells: &mut Vec<Cell>) -> Result<Life, Fault> {
        self.set_fal("delay_ms=0&file_bytes=0").await?;
        let subject = self.bench.subject(kind).await?;
        let (before, small) = (self.bench.charged(&subject).await?, self.bench.database_bytes(&subject).await?);
        let script = self.bench.script(&subject, false);
        let warm = client::repeat(&subject.addresses, &script, 16, Duration::from_secs(1)).await;
        let (mut answered, mut peak_at_64) = (warm.good(), f64::NAN);
        for (clients, delay) in loads.iter().copied() {
            let (cell, tally) = self.cell(&subject, clients, delay).await?;
            answered += tally.good();
            cells.push(cell);
            if clients <= 64 {
                peak_at_64 = subject.peak_memory();
            }
        }
        let charged = self.bench.charged(&subject).await?.zip(before).map(|(after, before)| after - before);
        let grown = self.bench.database_bytes(&subject).await?.zip(small).map(|(after, before)| after - before);
        let growth = grown.map_or(f64::NAN, |bytes| bytes as f64 / answered.max(1) as f64);
        let peak = subject.peak_memory();
        Ok(Life { growth, kind, cold_start: subject.cold_start, peak_at_64, peak, answered, charged })
    }

    /// Ten thousand requests that wait for an image of ten seconds.
    async fn wait_in_thousands(&self, clients: usize) -> Result<(), Fault> {
        self.set_fal("delay_ms=0").await?;
        let subject = self.bench.subject(Kind::Gateway).await?;
        let before = self.bench.charged(&subject).await?.unwrap_or(0);
        self.set_fal("delay_ms=10000").await?;
        let tally = client::once(&subject.addresses, &self.bench.script(&subject, false), clients).await;
        let charged = self.bench.charged(&subject).await?.unwrap_or(0) - before;
        println!(
            "{clients} requests at once for an image of 10 s: {} answered, {} charged, {:.1} s median, {:.1} s p99, {:.0} MiB at the most; statuses {:?}, {} broken",
            tally.good(),
            charged,
            tally.quantile(0.5) / 1000.0,
            tally.quantile(0.99) / 1000.0,
            subject.peak_memory(),
            tally.statuses,
            tally.broken,
        );
        Ok(())
    }

    /// Answers and inputs of 16 MB in base64: memory for each that is under way.
    async fn pass_large(&self) -> Result<(), Fault> {
        for (what, file_bytes) in [("answers", 12_582_912), ("inputs", 0)] {
            self.set_fal("delay_ms=0&file_bytes=0").await?;
            let subject = self.bench.subject(Kind::Gateway).await?;
            let pid = subject.pids().first().copied().unwrap_or_default();
            self.set_fal(&format!("file_bytes={file_bytes}")).await?;
            let script =
                if file_bytes > 0 { self.bench.script(&subject, true) } else { self.bench.large_input(&subject) };
            for clients in [1, 4, 16] {
                machine::forget_peak(pid);
                let (before, seconds) = (machine::memory(pid), Duration::from_secs(self.seconds));
                let tally = client::repeat(&subject.addresses, &script, clients, seconds).await;
                let more = machine::peak_memory(pid) - before;
                println!(
                    "{what} of 16 MiB in base64, {clients} at once: {:.1}/s, {more:.0} MiB more than before at the most, {:.0} MiB each; statuses {:?}",
                    tally.rate(),
                    more / clients as f64,
                    tally.statuses,
                );
            }
        }
        self.set_fal("file_bytes=0").await
    }

    /// Four times the clients that saturate it, with a look at how it recovers.
    async fn overload(&self) -> Result<(), Fault> {
        let subject = self.bench.subject(Kind::Gateway).await?;
        let before = self.bench.charged(&subject).await?.unwrap_or(0);
        let mut good = 0;
        for (clients, name) in [(256, "before"), (4096, "overload"), (64, "after")] {
            let (cell, tally) = self.cell(&subject, clients, 0).await?;
            good += tally.good();
            println!(
                "  {name}: {:.0} good answers/s, statuses {:?}, {} refusals without Retry-After, {} broken",
                cell.rate, tally.statuses, tally.bare_refusals, tally.broken
            );
        }
        let charged = self.bench.charged(&subject).await?.unwrap_or(0) - before;
        println!("  {good} answered, {charged} charged");
        Ok(())
    }

    /// Memory over time at 64 clients, with images of a second: a quarter of a million answers in an hour.
    async fn soak(&self, minutes: u64) -> Result<(), Fault> {
        let subject = self.bench.subject(Kind::Gateway).await?;
        self.set_fal("delay_ms=1000").await?;
        let script: Script = self.bench.script(&subject, false);
        let (before, mut answered) = (self.bench.charged(&subject).await?.unwrap_or(0), 0);
        for minute in 1..=minutes {
            let tally = client::repeat(&subject.addresses, &script, 64, Duration::from_mins(1)).await;
            let memory = subject.pids().first().copied().map_or(f64::NAN, machine::memory);
            let charged = self.bench.charged(&subject).await?.unwrap_or(0);
            answered += tally.good();
            println!(
                "minute {minute}: {:.0}/s, {:.2} ms p99, {memory:.1} MiB, {answered} answered, {} charged",
                tally.rate(),
                tally.quantile(0.99),
                charged - before,
            );
        }
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        subject::stop(&mut self.fal);
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The tables: medians over the rounds.
fn report(arguments: &Arguments, cells: &[Cell], lives: &[Life]) {
    println!(
        "\n| clients | image | row | answers/s | median ms | p99 ms | added median | added p99 | CPU ms, own | CPU ms, PostgreSQL |"
    );
    println!("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|");
    for (clients, delay) in arguments.loads() {
        let of = |kind: Kind, value: fn(&Cell) -> f64| {
            let here = |cell: &&Cell| cell.kind == kind && cell.clients == clients && cell.delay == delay;
            middle(cells.iter().filter(here).map(value))
        };
        for kind in &arguments.rows {
            let (median, p99) = (of(*kind, |cell| cell.median), of(*kind, |cell| cell.p99));
            println!(
                "| {clients} | {delay} ms | {} | {:.0} | {median:.2} | {p99:.2} | {:.2} | {:.2} | {:.3} | {:.3} |",
                kind.name(),
                of(*kind, |cell| cell.rate),
                median - of(Kind::Direct, |cell| cell.median),
                p99 - of(Kind::Direct, |cell| cell.p99),
                of(*kind, |cell| cell.own),
                of(*kind, |cell| cell.database),
            );
        }
    }
    println!(
        "\n| row | cold start ms | peak MiB, to 64 clients | peak MiB | answers | charged | bytes in the database for each |\n|---|---:|---:|---:|---:|---:|---:|"
    );
    for kind in arguments.rows.iter().filter(|kind| **kind != Kind::Direct) {
        let of = |value: fn(&Life) -> f64| middle(lives.iter().filter(|life| life.kind == *kind).map(value));
        let sum = |value: fn(&Life) -> Option<u64>| {
            let all: Option<Vec<u64>> = lives.iter().filter(|life| life.kind == *kind).map(value).collect();
            all.map_or_else(|| "–".to_owned(), |all| all.iter().sum::<u64>().to_string())
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {:.0} |",
            kind.name(),
            of(|life| life.cold_start.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)),
            of(|life| life.peak_at_64),
            of(|life| life.peak),
            sum(|life| Some(life.answered)),
            sum(|life| life.charged),
            of(|life| life.growth),
        );
    }
    ratios(cells);
}

/// Where the gateway stands against the floor at 64 clients.
fn ratios(cells: &[Cell]) {
    let at = |kind: Kind, value: fn(&Cell) -> f64| {
        middle(cells.iter().filter(|cell| cell.kind == kind && cell.clients == 64 && cell.delay == 0).map(value))
    };
    let added = |kind: Kind, value: fn(&Cell) -> f64| at(kind, value) - at(Kind::Direct, value);
    println!("\nThe gateway against the floor at 64 clients, fal at 0 ms:");
    for (what, ratio, target) in [
        ("own CPU", at(Kind::Gateway, |cell| cell.own) / at(Kind::Floor, |cell| cell.own), 2.0),
        ("PostgreSQL's CPU", at(Kind::Gateway, |cell| cell.database) / at(Kind::Floor, |cell| cell.database), 2.5),
        ("added median", added(Kind::Gateway, |cell| cell.median) / added(Kind::Floor, |cell| cell.median), 1.5),
        ("added p99", added(Kind::Gateway, |cell| cell.p99) / added(Kind::Floor, |cell| cell.p99), 2.0),
    ] {
        println!("  {what}: {ratio:.2} (target {target})");
    }
    let all = |kind| at(kind, |cell| cell.own + cell.database);
    let (gateway, one_call) = (all(Kind::Gateway), all(Kind::FloorOneCall));
    println!("  all CPU: {gateway:.3} ms, {:.2} of the floor with one call (target 3.33)", gateway / one_call);
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let arguments = Arguments::read()?;
    let programs = std::env::current_exe()?.parent().ok_or("this program is in no folder")?.to_owned();
    let fal = subject::free_address()?;
    let running = subject::start(&programs.join("fal"), &[&fal], &[], &arguments.work.join("fal.log"))?;
    let (gateway, server) = (arguments.gateway.clone(), arguments.server.clone());
    let bench = Bench { programs, gateway, server, work: arguments.work.clone(), fal };
    let driver = Driver { bench, postmaster: arguments.postmaster, fal: running, seconds: arguments.seconds };
    while driver.set_fal("delay_ms=0").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if let Some(minutes) = arguments.soak {
        return driver.soak(minutes).await;
    }
    let (mut cells, mut lives) = (Vec::new(), Vec::new());
    for round in 0..if arguments.tables { arguments.rounds } else { 0 } {
        let mut rows = arguments.rows.clone();
        let length = rows.len();
        rows.rotate_left(round as usize % length);
        for kind in rows {
            lives.push(driver.life(kind, &arguments.loads(), &mut cells).await?);
        }
    }
    if arguments.tables {
        report(&arguments, &cells, &lives);
    }
    if arguments.extras && arguments.rows.contains(&Kind::Gateway) {
        println!();
        driver.overload().await?;
        driver.pass_large().await?;
        driver.wait_in_thousands(10_000).await?;
    }
    Ok(())
}
