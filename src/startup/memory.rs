//! How much memory bodies and images under way may take.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tracing::warn;

use crate::config::HttpSettings;
use crate::domain::MemoryBudget;

/// The budget: half of `IMAGEGATE_MEMORY_LIMIT`, which is three quarters of what the control group of the process may use, or
/// half of the machine's memory where it has no limit of its own. The largest body always fits.
#[must_use]
pub fn budget(settings: &HttpSettings) -> MemoryBudget {
    let body_limit = settings.body_limit as u64;
    let limit = settings.memory_limit.map_or_else(default_limit, |limit| limit as u64);
    let needed = MemoryBudget::least_for(body_limit);
    if limit < needed {
        warn!(
            limit,
            needed,
            "there is little memory for bodies of IMAGEGATE_BODY_LIMIT; set IMAGEGATE_MEMORY_LIMIT, or a smaller IMAGEGATE_BODY_LIMIT"
        );
    }
    MemoryBudget::of_process(limit, body_limit)
}

/// What the process may take where nobody has said so; nothing on a machine that does not tell what it has.
fn default_limit() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    let total = system.total_memory();
    let of_group = sysinfo::get_current_pid().ok().and_then(|pid| {
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing());
        system.process(pid)?.cgroup_limits()
    });
    match of_group {
        Some(group) if group.total_memory < total => group.total_memory / 4 * 3,
        _ => total / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_there_is() {
        // Less than any machine that builds this has.
        assert!(default_limit() > 64 * 1024 * 1024);
    }
}
