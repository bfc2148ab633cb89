//! What durability costs: run by hand, since it takes a disk that flushes and a quiet machine.
//!
//! `cargo test --release --lib ledger::tests::measure -- --ignored --nocapture`

#![expect(clippy::print_stdout, reason = "whoever measures reads it")]

use std::time::Instant;

use futures_util::StreamExt;

use super::*;

/// How many generations are measured, and how many clients there are.
const GENERATIONS: u32 = 4000;
const CLIENTS: [usize; 3] = [1, 16, 64];

/// CPU time of this process so far, in seconds, as the kernel counts it (hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn measure(name: &str, database: &TestDatabase) {
    let desk = Desk::open(database).await;
    for clients in CLIENTS {
        let count = if clients == 1 { GENERATIONS / 10 } else { GENERATIONS };
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        let mut added: Vec<Duration> = futures_util::stream::iter(0..count)
            .map(async |_| {
                let begin = Instant::now();
                let id = desk.reserve(dollars("0.1")).await;
                desk.books.submitted(submit_of(id, 1)).await.unwrap();
                desk.books.finish(delivered(id, dollars("0.1"), dollars("0.05"))).await.unwrap();
                begin.elapsed()
            })
            .buffer_unordered(clients)
            .collect()
            .await;
        let (elapsed, cpu) = (begin.elapsed(), cpu_seconds() - cpu);
        added.sort_unstable();
        println!(
            "{name}: {clients} clients, {:.0} generations/s, hold + submit + settle {:.1} ms median, {:.1} ms p99, {:.0} µs CPU each",
            f64::from(count) / elapsed.as_secs_f64(),
            added[added.len() / 2].as_secs_f64() * 1e3,
            added[added.len() * 99 / 100].as_secs_f64() * 1e3,
            cpu / f64::from(count) * 1e6,
        );
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn measure_the_books() {
    println!("{GENERATIONS} generations, each three durable writes");
    measure("SQLite", &TestDatabase::sqlite()).await;
    measure("PostgreSQL", &TestDatabase::postgres().await).await;
}
