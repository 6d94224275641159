//! Wake-ups of an idle broker: voluntary context switches of its threads, from /proc.

use std::fs;
use std::thread;
use std::time::Duration;

use eventbroker::Broker;

use crate::figures::{Figures, event, wait_until_settled};

/// Sleeps of all threads of this process so far, and processor time used, in clock ticks.
fn sleeps_and_ticks() -> (u64, u64) {
    let tasks = fs::read_dir("/proc/self/task").expect("the threads of this process");
    let (mut sleeps, mut ticks) = (0, 0);
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
        sleeps += line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        ticks += fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    (sleeps, ticks)
}

pub(crate) fn run(short: bool, figures: &mut Figures) {
    let seconds = if short { 4 } else { 20 };
    let broker = Broker::builder().start().expect("a broker");
    for _ in 0..10 {
        broker.subscribe("idle.**", |_| ()).expect("a subscription");
    }
    // Idle after work, not only after the start.
    for number in 0..1_000 {
        broker.publish(event("idle.entry.create", &number)).expect("room");
        if number % 100 == 99 {
            assert!(wait_until_settled(&broker), "everything settles");
        }
    }
    thread::sleep(Duration::from_secs(1));
    let (sleeps_before, ticks_before) = sleeps_and_ticks();
    thread::sleep(Duration::from_secs(seconds));
    let (sleeps, ticks) = sleeps_and_ticks();
    // Without the one sleep of the measuring thread.
    let per_second = (sleeps - sleeps_before).saturating_sub(1) as f64 / seconds as f64;
    let per_second_ticks = (ticks - ticks_before) as f64 / seconds as f64;
    figures.note("workers", broker.stats().workers);
    figures.check("wake-ups per second", format!("{per_second:.1}"), "fewer than 20", per_second < 20.0);
    figures.check(
        "clock ticks of work per second",
        format!("{per_second_ticks:.2}"),
        "at most 1",
        per_second_ticks <= 1.0,
    );
    broker.stop(Duration::from_secs(5));
}
