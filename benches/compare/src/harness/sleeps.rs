//! Sleeps of the threads of this process, as counted by Linux.

use std::fs;

/// Voluntary context switches so far of all threads alive now.
pub(crate) fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).filter_map(|it| voluntary(&it)).sum()
}

fn voluntary(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::voluntary;

    #[test]
    fn the_count_is_read_from_its_own_line() {
        assert_eq!(voluntary("Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n"), Some(42));
    }
}
