//! `publish`: one event from the arguments, or one from each line of standard input.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use eventbroker::{Accepted, Broker, Event, EventType, PublishError, Receipt, Source};

use crate::back_end::{STOP, Target};
use crate::exit::{Exit, Failure};
use crate::{complain, print};

/// Publishes in flight. At this number the oldest receipt is awaited before the next event is published.
const OUTSTANDING: usize = 1_000;
/// How long to wait for the receipt of a publish.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of `publish`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker publish shop.orders.create --payload '{\"id\": 7}' --key customer-3 --url sqlite:events.db
  eventbroker publish shop.orders.import --payload - < orders.json --url sqlite:events.db
  eventbroker publish --lines < events.ndjson --url sqlite:events.db")]
#[command(after_help = "\
The id is printed once the back end has accepted the event. Publishing a known id again changes nothing.
With --lines, each line of standard input is an event in eventbroker JSON. A bad line is reported with its number and
skipped, and the exit code is 6.")]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Event type, like `shop.orders.create`
    #[arg(value_name = "TYPE", required_unless_present = "lines", conflicts_with = "lines", value_parser = EventType::parse)]
    event_type: Option<EventType>,
    /// Payload as JSON; `-` to read it from standard input
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Source of the event: database, websocket, frontend, system, internal
    #[arg(long, default_value = "system", value_parser = |name: &str| name.parse::<Source>())]
    source: Source,
    /// Id of the event, which makes publishing it again harmless [default: a new UUIDv7]
    #[arg(long)]
    id: Option<String>,
    /// Ordering key
    #[arg(long)]
    key: Option<String>,
    /// Id of the user
    #[arg(long)]
    user_id: Option<i64>,
    /// Id of the session
    #[arg(long)]
    session_id: Option<String>,
    /// Metadata entry; a value that is not JSON is taken as text. May be given several times
    #[arg(long, value_name = "NAME=JSON")]
    metadata: Vec<String>,
    /// Publish one event from each line of standard input
    #[arg(long, conflicts_with_all = ["payload", "id", "key", "user_id", "session_id", "metadata"])]
    lines: bool,
}

/// Publishes the event, or those of standard input.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let event = options.event_type.as_ref().map(|event_type| build(options, event_type)).transpose()?;
    let broker = options.target.start()?;
    let published = match event {
        Some(event) => broker.publish(event).map_err(failure).and_then(|accepted| print_accepted(&accepted, json)),
        None => publish_lines(&broker, json),
    };
    broker.stop(STOP);
    published
}

fn build(options: &Options, event_type: &EventType) -> Result<Event, Failure> {
    let mut builder = Event::builder(options.source, event_type.as_str());
    let payload = match options.payload.as_deref() {
        Some("-") => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text)?;
            Some(text)
        }
        given => given.map(str::to_owned),
    };
    if let Some(payload) = payload {
        builder = builder.payload_json(payload);
    }
    if let Some(id) = &options.id {
        builder = builder.id(id.as_str());
    }
    if let Some(key) = &options.key {
        builder = builder.key(key.as_str());
    }
    if let Some(user) = options.user_id {
        builder = builder.user_id(user);
    }
    if let Some(session) = &options.session_id {
        builder = builder.session_id(session.as_str());
    }
    for entry in &options.metadata {
        let Some((name, value)) = entry.split_once('=') else {
            return Err(Failure::usage(format_args!("--metadata {entry}: must be NAME=JSON")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::from(value));
        builder = builder.metadata(name, value);
    }
    builder.build().map_err(Failure::usage)
}

fn publish_lines(broker: &Broker, json: bool) -> Result<Exit, Failure> {
    let (mut pending, mut exit) = (VecDeque::new(), Exit::Ok);
    let mut complain_of = |number: u64, problem: &dyn std::fmt::Display| {
        report(number, &problem.to_string(), json);
        exit = Exit::PartlyFailed;
    };
    let settle = |receipt: Receipt| match receipt.wait(PATIENCE) {
        Ok(accepted) => print_accepted(&accepted, json).map(|_| None),
        Err(error @ PublishError::Unknown { .. }) => Err(failure(error)),
        Err(error) => Ok(Some(error)),
    };
    for (line, number) in io::stdin().lock().lines().zip(1..) {
        let event = match Event::from_json(line?.as_bytes()) {
            Ok(event) => event,
            Err(error) => {
                complain_of(number, &error);
                continue;
            }
        };
        if pending.len() >= OUTSTANDING
            && let Some((number, receipt)) = pending.pop_front()
            && let Some(error) = settle(receipt)?
        {
            complain_of(number, &error);
        }
        match broker.publish_async(event) {
            Ok(receipt) => pending.push_back((number, receipt)),
            Err(error) => complain_of(number, &error),
        }
    }
    for (number, receipt) in pending {
        if let Some(error) = settle(receipt)? {
            complain_of(number, &error);
        }
    }
    Ok(exit)
}

fn print_accepted(accepted: &Accepted, json: bool) -> Result<Exit, Failure> {
    if json {
        let line = serde_json::json!({ "id": accepted.id.to_string(), "duplicate": accepted.duplicate });
        return print(format!("{line}\n").as_bytes());
    }
    print(format!("{}\n", accepted.id).as_bytes())
}

fn failure(error: PublishError) -> Failure {
    match error {
        PublishError::Unknown { .. } => Failure::unreachable(error),
        other => Failure::new(other),
    }
}

fn report(number: u64, problem: &str, json: bool) {
    if json {
        complain(&serde_json::json!({ "line": number, "error": problem }).to_string());
    } else {
        complain(&format!("line {number}: {problem}"));
    }
}
