//! What the kernel tells of processes: processor time and memory.

use std::collections::HashMap;

/// Processor seconds, as the kernel counts them (hundredths).
#[derive(Clone, Copy)]
struct Times {
    parent: u32,
    own: f64,
    reaped: f64,
}

fn times(pid: u32) -> Option<Times> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).map(|ticks| ticks / 100.0);
    Some(Times { parent: fields.get(1)?.parse().ok()?, own: ticks(11)? + ticks(12)?, reaped: ticks(13)? + ticks(14)? })
}

/// Processor seconds that a process, and all below it, living and reaped, have used so far.
pub fn processor_seconds(root: u32) -> f64 {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    let all: HashMap<u32, Times> = pids.filter_map(|pid| Some((pid, times(pid)?))).collect();
    let is_below = |mut pid: u32| loop {
        if pid == root {
            return true;
        }
        match all.get(&pid) {
            Some(times) if times.parent > 1 => pid = times.parent,
            _ => return false,
        }
    };
    all.iter().filter(|(pid, _)| is_below(**pid)).map(|(_, times)| times.own + times.reaped).sum()
}

fn status_field(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The most memory that a process has had, in MiB.
pub fn peak_memory(pid: u32) -> f64 {
    status_field(pid, "VmHWM")
}

/// The memory that a process has now, in MiB.
pub fn memory(pid: u32) -> f64 {
    status_field(pid, "VmRSS")
}

/// Forgets a process's peak, so that the next one is of what comes now.
pub fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Seconds that all processors together have worked since the machine started.
pub fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<f64>() - idle) / 100.0
}
