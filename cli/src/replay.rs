//! `replay`: redelivers the events of a range to one subscription.

use std::time::SystemTime;

use eventbroker::provider::Replay;
use eventbroker::{EventId, Pattern};
use serde_json::json;

use crate::back_end::{STOP, Target, failure};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::{print, times};

/// Options of `replay`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker replay mailer --from 1h --dry-run --url sqlite:events.db
  eventbroker replay mailer --from 2026-11-24T08:00:00Z --to 2026-11-24T09:00:00Z --url sqlite:events.db
  eventbroker replay audit --pattern 'shop.orders.*' --limit 100000 --url sqlite:events.db")]
#[command(after_help = "\
Events with an open delivery to the subscription are skipped. If the limit is reached, the id to continue from with
--after is printed.")]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Name of the subscription
    #[arg(value_name = "SUBSCRIPTION")]
    subscription: String,
    /// Only events created at or after this time, or this duration ago
    #[arg(long, value_name = "TIME", value_parser = times::time)]
    from: Option<SystemTime>,
    /// Only events created at or before this time, or this duration ago
    #[arg(long, value_name = "TIME", value_parser = times::time)]
    to: Option<SystemTime>,
    /// Only events stored after the one with this id
    #[arg(long, value_name = "ID", value_parser = EventId::parse)]
    after: Option<EventId>,
    /// Only events stored up to the one with this id
    #[arg(long, value_name = "ID", value_parser = EventId::parse)]
    until: Option<EventId>,
    /// Only events whose type matches this pattern
    #[arg(long, value_parser = Pattern::parse)]
    pattern: Option<Pattern>,
    /// Maximum number of events, at most 100,000
    #[arg(long, value_name = "EVENTS", default_value_t = 1_000)]
    limit: usize,
    /// Count the events, deliver none
    #[arg(long)]
    dry_run: bool,
}

/// Runs the replay.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let mut replay = Replay::of(&options.subscription);
    (replay.from, replay.to) = (options.from, options.to);
    (replay.after, replay.until) = (options.after.clone(), options.until.clone());
    (replay.event_type, replay.limit) = (options.pattern.clone(), options.limit);
    let broker = options.target.start()?;
    let replayed = if options.dry_run { broker.replay_dry_run(&replay) } else { broker.replay(&replay) };
    broker.stop(STOP);
    let replayed = replayed.map_err(failure)?;
    let next = replayed.next.as_ref().map(ToString::to_string);
    if json {
        let dry_run = options.dry_run;
        return print_json(&json!({ "deliveries": replayed.deliveries, "dry_run": dry_run, "next": next }));
    }
    let what = if options.dry_run { "would be redelivered" } else { "will be redelivered" };
    let more = next.map(|next| format!("; continue with --after {next}")).unwrap_or_default();
    print(format!("{} events {what} to {}{more}\n", replayed.deliveries, options.subscription).as_bytes())
}
