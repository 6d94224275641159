//! `sql`: the tables of a database.

use std::time::{Duration, SystemTime};

use eventbroker::Status;
use eventbroker::query::Filter;
use serde_json::json;

use crate::back_end::{Target, failure};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::{print, signals, stats, times};

/// Events per page.
const PAGE: usize = 1_000;

/// Options of `sql`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker sql migrate --url sqlite:events.db
  eventbroker sql print --url sqlite: > schema.sql
  eventbroker sql purge --older-than 30d --url sqlite:events.db")]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create the tables, or migrate them to the current version
    Migrate(Only),
    /// Print the statements that create the tables
    Print(Only),
    /// Show the backlog of each subscription
    Lag(Only),
    /// Delete completed and failed events, with their dead letters and their deliveries from replays
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct Only {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Purge {
    #[command(flatten)]
    target: Target,
    /// Only events created at least this long ago
    #[arg(long, value_name = "DURATION", value_parser = times::duration)]
    older_than: Duration,
    /// Only events with this status: completed or failed [default: both]
    #[arg(long, value_parser = ended)]
    status: Option<Status>,
}

fn ended(name: &str) -> Result<Status, String> {
    match name.parse() {
        Ok(status @ (Status::Completed | Status::Failed)) => Ok(status),
        _ => Err("must be completed or failed".to_owned()),
    }
}

/// Runs the subcommand.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    match &options.verb {
        Verb::Migrate(only) => {
            let provider = only.target.open()?;
            if json {
                return print_json(&json!({ "ok": true, "provider": provider.name }));
            }
            print(b"the tables are up to date\n")
        }
        Verb::Print(only) => {
            let text = eventbroker_providers::sql_schema(&only.target.configuration()?).map_err(Failure::usage)?;
            if json { print_json(&json!({ "sql": text })) } else { print(text.as_bytes()) }
        }
        Verb::Lag(only) => {
            let provider = only.target.open()?;
            let operator = provider.operator.ok_or_else(|| Failure::usage("the back end reports no lag"))?;
            let lag = operator.stats().map_err(failure)?;
            if json { print_json(&stats::as_json(&lag)) } else { print(stats::table(&lag).as_bytes()) }
        }
        Verb::Purge(purge) => remove(purge, json),
    }
}

fn remove(purge: &Purge, json: bool) -> Result<Exit, Failure> {
    let provider = purge.target.open()?;
    let store = provider.store.ok_or_else(|| Failure::usage("the back end can't be searched"))?;
    let before = SystemTime::now().checked_sub(purge.older_than);
    let before = before.ok_or_else(|| Failure::usage("--older-than is too long ago"))?;
    let mut removed: u64 = 0;
    for status in [Status::Completed, Status::Failed] {
        if purge.status.is_some_and(|only| only != status) {
            continue;
        }
        let mut filter =
            Filter { status: Some(status), created_to: Some(before), limit: Some(PAGE), ..Filter::default() };
        loop {
            let page = store.list(&filter).map_err(failure)?;
            for event in &page.events {
                removed += u64::from(store.delete(event.id()).map_err(failure)?);
            }
            filter.after = page.next;
            if filter.after.is_none() || signals::stop_requested() {
                break;
            }
        }
    }
    if json {
        print_json(&json!({ "removed": removed }))?;
    } else {
        print(format!("removed {removed} events\n").as_bytes())?;
    }
    Ok(signals::received().map_or(Exit::Ok, Exit::Signal))
}
