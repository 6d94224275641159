//! `list` and `show`: events of a back end with their statuses.

use std::time::SystemTime;

use eventbroker::query::{Filter, Order};
use eventbroker::{Event, EventId, Source, Status};

use crate::back_end::{Target, failure};
use crate::exit::{Exit, Failure};
use crate::{print, times};

/// Events per page.
const PAGE: usize = 1_000;

/// Options of `list`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker list --status failed --entity orders --from 1d --url sqlite:events.db
  eventbroker list --limit 1000000 --oldest-first --json --url sqlite:events.db > events.ndjson")]
#[command(after_help = "Events are ordered by id. For ids made by the broker this is the order of publishing.")]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Only events with this status: pending, processing, completed, failed
    #[arg(long, value_parser = |name: &str| name.parse::<Status>())]
    status: Option<Status>,
    /// Only events from this source: database, websocket, frontend, system, internal
    #[arg(long, value_parser = |name: &str| name.parse::<Source>())]
    source: Option<Source>,
    /// Only events of this schema
    #[arg(long)]
    schema: Option<String>,
    /// Only events of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only events of this operation
    #[arg(long)]
    operation: Option<String>,
    /// Only events published by this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Only events of this user
    #[arg(long, value_name = "ID")]
    user_id: Option<i64>,
    /// Only events created at or after this time, or this duration ago
    #[arg(long, value_name = "TIME", value_parser = times::time)]
    from: Option<SystemTime>,
    /// Only events created at or before this time, or this duration ago
    #[arg(long, value_name = "TIME", value_parser = times::time)]
    to: Option<SystemTime>,
    /// Only events that follow this id in the order of the list
    #[arg(long, value_name = "ID", value_parser = EventId::parse)]
    after: Option<EventId>,
    /// List the oldest event first [default: the newest first]
    #[arg(long)]
    oldest_first: bool,
    /// Maximum number of events
    #[arg(long, value_name = "EVENTS", default_value_t = 100)]
    limit: usize,
}

/// Options of `show`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker show 019ac2d4-7c2f-7d25-8b0e-7ac5d0ab8f11 --url sqlite:events.db
  eventbroker show order-17 --json --url sqlite:events.db | jq .payload")]
pub(crate) struct ShowOptions {
    #[command(flatten)]
    target: Target,
    /// Id of the event
    #[arg(value_parser = EventId::parse)]
    id: EventId,
}

/// Lists the events that match, page by page.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let provider = options.target.open()?;
    let store = provider.store.ok_or_else(|| Failure::usage("the back end can't be searched"))?;
    let mut filter = Filter {
        source: options.source,
        status: options.status,
        user_id: options.user_id,
        schema: options.schema.clone(),
        entity: options.entity.clone(),
        operation: options.operation.clone(),
        instance_id: options.instance.clone(),
        created_from: options.from,
        created_to: options.to,
        order: if options.oldest_first { Order::OldestFirst } else { Order::NewestFirst },
        after: options.after.clone(),
        limit: None,
    };
    let mut left = options.limit;
    while left > 0 {
        filter.limit = Some(left.min(PAGE));
        let page = store.list(&filter).map_err(failure)?;
        left = left.saturating_sub(page.events.len());
        let text: String = page.events.iter().map(|event| line(event, json)).collect();
        print(text.as_bytes())?;
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    Ok(Exit::Ok)
}

/// Shows one event.
pub(crate) fn show(options: &ShowOptions, json: bool) -> Result<Exit, Failure> {
    let provider = options.target.open()?;
    let store = provider.store.ok_or_else(|| Failure::usage("the back end can't be searched"))?;
    let event = store.get(&options.id).map_err(failure)?;
    let event = event.ok_or_else(|| Failure::not_found(format_args!("there is no event {}", options.id)))?;
    print(if json { line(&event, true) } else { page(&event) }.as_bytes())
}

/// Formats an event on one line: as JSON, or as time, status, id, type and payload.
pub(crate) fn line(event: &Event, json: bool) -> String {
    if json {
        return format!("{}\n", String::from_utf8_lossy(&event.to_json()));
    }
    let (time, status) = (times::text(event.created_at()), event.status().as_str());
    format!("{time}  {status:10}  {}  {}  {}\n", event.id(), event.event_type(), event.payload().as_str())
}

/// Formats an event as text, one line per field that is set.
fn page(event: &Event) -> String {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let metadata =
        (!event.metadata().is_empty()).then(|| serde_json::Value::from(event.metadata().clone()).to_string());
    let retries = (event.retry_count() > 0).then(|| event.retry_count().to_string());
    let lines = [
        ("id", Some(event.id().to_string())),
        ("type", Some(event.event_type().to_string())),
        ("source", Some(event.source().to_string())),
        ("status", Some(event.status().to_string())),
        ("error", text(event.error())),
        ("retries", retries),
        ("created", Some(times::text(event.created_at()))),
        ("processed", event.processed_at().map(times::text)),
        ("completed", event.completed_at().map(times::text)),
        ("key", text(event.key())),
        ("instance", text(event.instance_id())),
        ("user", event.user_id().map(|id| id.to_string())),
        ("session", text(event.session_id())),
        ("metadata", metadata),
        ("payload", Some(event.payload().as_str().to_owned())),
    ];
    lines.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name:10} {value}\n"))).collect()
}
