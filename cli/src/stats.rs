//! `stats`: the number of events that a back end holds, and the backlog of each subscription.

use eventbroker::stats::{BackEndStats, StoreStats, SubscriptionLag};
use serde_json::{Value, json};

use crate::back_end::{Target, failure};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::{print, times};

/// Options of `stats`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker stats --url sqlite:events.db
  eventbroker stats --json --url sqlite:events.db | jq '.subscriptions[] | select(.ready > 1000)'")]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
}

/// Prints the statistics.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let provider = options.target.open()?;
    let store = provider.store.ok_or_else(|| Failure::usage("the back end can't be searched"))?;
    let events = store.stats().map_err(failure)?;
    let lag = provider.operator.map(|operator| operator.stats()).transpose().map_err(failure)?.unwrap_or_default();
    if json {
        let mut stats = as_json(&lag);
        stats["events"] = json!({
            "held": events.events, "pending": events.pending, "processing": events.processing,
            "completed": events.completed, "failed": events.failed,
        });
        return print_json(&stats);
    }
    print((as_text(events) + &table(&lag)).as_bytes())
}

fn as_text(events: StoreStats) -> String {
    let StoreStats { pending, processing, completed, failed, .. } = events;
    format!(
        "events         {}: {pending} pending, {processing} processing, {completed} completed, {failed} failed\n",
        events.events
    )
}

/// The statistics of the back end as JSON.
pub(crate) fn as_json(stats: &BackEndStats) -> Value {
    let subscription = |lag: &SubscriptionLag| {
        json!({
            "group": lag.group, "name": lag.name, "instance": lag.instance, "pattern": lag.pattern, "ready": lag.ready,
            "leased": lag.leased, "deferred": lag.deferred, "dead": lag.dead, "oldest_ready": lag.oldest_ready.map(times::text),
        })
    };
    json!({
        "dead_letters": stats.dead_letters,
        "dead_letters_expired": stats.dead_letters_expired,
        "subscriptions_expired": stats.subscriptions_expired,
        "entries_lost": stats.entries_lost,
        "losses_unknown": stats.losses_unknown,
        "oldest_transaction_seconds": stats.oldest_transaction.map(|age| age.as_secs_f64()),
        "subscriptions": stats.subscriptions.iter().map(subscription).collect::<Vec<_>>(),
    })
}

/// The statistics of the back end as text: totals, and a table of the subscriptions.
pub(crate) fn table(stats: &BackEndStats) -> String {
    let mut rows =
        vec![["SUBSCRIPTION", "PATTERN", "READY", "LEASED", "DEFERRED", "DEAD", "OLDEST"].map(str::to_owned)];
    rows.extend(stats.subscriptions.iter().map(|lag| {
        let of = lag.instance.as_ref().map(|instance| format!(" of {instance}")).unwrap_or_default();
        [
            format!("{}.{}{of}", lag.group, lag.name),
            lag.pattern.clone(),
            lag.ready.to_string(),
            lag.leased.to_string(),
            lag.deferred.to_string(),
            lag.dead.to_string(),
            lag.oldest_ready.map_or_else(|| "-".to_owned(), times::text),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let oldest = stats.oldest_transaction.filter(|age| age.as_secs() > 0);
    let oldest = oldest.map_or_else(String::new, |age| {
        format!("streams wait for a transaction that has been open for {} s\n", age.as_secs())
    });
    let lost = match (stats.entries_lost, stats.losses_unknown) {
        (0, 0) => String::new(),
        (lost, _) => format!("lost           at least {lost} events were removed before they were handled\n"),
    };
    format!(
        "dead letters   {} ({} expired)\nsubscriptions  {} ({} expired)\n{lost}{oldest}{}",
        stats.dead_letters,
        stats.dead_letters_expired,
        stats.subscriptions.len(),
        stats.subscriptions_expired,
        rows.iter().map(line).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::{as_json, table};
    use eventbroker::stats::BackEndStats;

    #[test]
    fn a_loss_is_a_lower_bound() {
        let mut stats = BackEndStats::default();
        assert!(!table(&stats).contains("lost"));
        stats.entries_lost = 298;
        assert!(table(&stats).contains("\nlost           at least 298 events were removed before they were handled\n"));
        stats.losses_unknown = 1;
        let json = as_json(&stats);
        assert_eq!((&json["entries_lost"], &json["losses_unknown"]), (&298.into(), &1.into()));
    }
}
