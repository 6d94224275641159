//! `eventbroker pipe`: NDJSON in, through a broker, NDJSON out. This file holds the options and the main thread, which
//! waits for the end. Reading is in `pipe/input.rs`, writing in `pipe/output.rs`, the command of `--exec` in
//! `pipe/exec.rs`, the lines of `--status` in `pipe/status.rs`, the final report in `pipe/report.rs`.

mod exec;
mod input;
mod output;
mod report;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use eventbroker::{Broker, Config, Event, Outcome, Overflow, Pattern, Source, SubscribeOptions};

use crate::exit::{Exit, Failure};
use crate::{cloudevents, complain, signals};
use input::Input;
use output::Output;
use report::{Report, Totals};
use status::Ledger;

/// Events queued for a handler, and terminal events whose ids are kept for deduplication. Small, because a payload may
/// be 1 MiB.
const EVENTS_HELD: usize = 500;
/// Events queued for a command. Small, so that few are left to drain after a signal.
const EVENTS_FOR_COMMANDS: usize = 16;
/// Deliveries that wait for a retry of their command. At this number no more input is read.
const RETRIES_HELD: usize = 1_000;
/// Deadline for draining the accepted events after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// Poll interval of the thread that waits for the end, and of the flusher.
const GLANCE: Duration = Duration::from_millis(10);
/// How long a publish blocks on a full queue before the reader checks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The type of the events by which a broker announces its own dead letters.
const NOTICE_TYPE: &str = "eventbroker.dead_letter";

/// Options of `pipe`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker pipe --pattern 'shop.orders.*' < events.ndjson > orders.ndjson
  tail -f events.ndjson | eventbroker pipe --pattern '*.*.delete' --exec './archive' > archived.ndjson
  eventbroker pipe --pattern '*' --source frontend --cloudevents < mixed.ndjson > cloudevents.ndjson")]
#[command(after_help = "\
Each line of the input is an event: eventbroker JSON, or a CloudEvent 1.0 in structured JSON. A bad line is reported
with its number and the field at fault and skipped, and the exit code is 6. Events are written in the order of the
input; with --exec, only those of one key. An id seen among the last 500 events is a duplicate and is not delivered
again.")]
pub(crate) struct Options {
    /// Only events whose type matches: `shop.orders.create`, `shop.*.create`, `shop.**`, `*` for all. May be given
    /// several times; an event is delivered once per pattern
    #[arg(long = "pattern", value_name = "PATTERN", required = true, value_parser = Pattern::parse)]
    patterns: Vec<Pattern>,
    /// Run a command for each delivery, by `sh -c`, with the event as JSON on its standard input. Exit code 0: done,
    /// and the event is written; 75: retry later; any other: failed. The command's output goes to standard error
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Also write a line for each event that has ended, with its final status and the verdict of each delivery
    #[arg(long)]
    status: bool,
    /// Source of CloudEvents from elsewhere than eventbroker: database, websocket, frontend, system, internal
    #[arg(long, default_value = "internal", value_parser = |name: &str| name.parse::<Source>())]
    source: Source,
    /// Write CloudEvents instead of eventbroker JSON
    #[arg(long)]
    cloudevents: bool,
}

/// Pipes standard input to standard output.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    if let Some(twice) = options.patterns.iter().enumerate().find(|(at, it)| options.patterns[..*at].contains(it)) {
        return Err(Failure::usage(format_args!("--pattern {} is given twice; leave one out", twice.1.as_str())));
    }
    let started = Instant::now();
    let output = Arc::new(Output::stdout()?);
    let broker = start_broker(options)?;
    let ledger = options.status.then(|| Ledger::watch(&broker, &output));
    subscribe(&broker, options, &output)?;

    let totals = Arc::new(Totals::default());
    let ending = Arc::new(AtomicBool::new(false));
    let input = Input {
        broker: broker.clone(),
        foreign: options.source,
        totals: Arc::clone(&totals),
        ledger,
        ending: Arc::clone(&ending),
        json,
    };
    let reader = spawn("input", move || input.run())?;
    let flusher = spawn_flusher(&output)?;

    let read = watch(&broker, &output, reader);
    ending.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + if output.has_ended() { Duration::ZERO } else { DRAIN };
    let stopped = broker.stop(deadline.saturating_duration_since(Instant::now()));
    finish(&output, &flusher, deadline);

    if output.is_closed() {
        return Ok(Exit::Ok);
    }
    let report = Report::new(&totals, &broker.stats(), stopped.abandoned.len(), started.elapsed());
    report.print(json);
    if let Some(error) = output.error() {
        return Err(Failure::new(format_args!(
            "cannot write to standard output: {error}; fix this and run the command again from the start"
        )));
    }
    read?;
    Ok(match signals::received() {
        Some(signal) => Exit::Signal(signal),
        None if !stopped.is_clean() => Exit::TimedOut,
        None if report.is_complete() => Exit::Ok,
        None => Exit::PartlyFailed,
    })
}

fn start_broker(options: &Options) -> Result<Broker, Failure> {
    let mut config = Config::default();
    config.worker_count = parallelism();
    config.buffer_size = if options.exec.is_some() { EVENTS_FOR_COMMANDS } else { EVENTS_HELD };
    config.max_waiting = RETRIES_HELD;
    config.max_events = EVENTS_HELD;
    config.max_dead_letters = 1;
    // A name of its own, so that `is_notice` does not match a notice of another broker in the input.
    config.instance_id = Some(format!("eventbroker-pipe-{}", std::process::id()));
    Ok(Broker::builder().config(config).start()?)
}

fn parallelism() -> usize {
    thread::available_parallelism().map_or(2, usize::from).clamp(2, 1_024)
}

fn subscribe(broker: &Broker, options: &Options, output: &Arc<Output>) -> Result<(), Failure> {
    let encode = if options.cloudevents { cloudevents::encode } else { Event::to_json };
    let instance: Arc<str> = broker.instance_id().into();
    for pattern in &options.patterns {
        let subscription =
            SubscribeOptions::new(pattern.as_str()).name(pattern.as_str()).overflow(Overflow::Block(PATIENCE));
        let (instance, output) = (Arc::clone(&instance), Arc::clone(output));
        let write = move |json: Vec<u8>| if output.line(json) { Outcome::Done } else { Outcome::Skip };
        if let Some(command) = options.exec.clone() {
            broker.subscribe_with(subscription.concurrency(parallelism()), move |delivery| {
                if is_notice(delivery.event(), &instance) {
                    return Outcome::Skip;
                }
                let json = encode(delivery.event());
                match exec::run(&command, &json) {
                    Outcome::Done => write(json),
                    other => other,
                }
            })?;
        } else {
            broker.subscribe_with(subscription.ordered(), move |delivery| write(encode(delivery.event())))?;
        }
    }
    Ok(())
}

/// Whether an event is not from the input, but announces a dead letter of this broker.
fn is_notice(event: &Event, instance: &str) -> bool {
    event.event_type().as_str() == NOTICE_TYPE
        && event.source() == Source::System
        && event.instance_id() == Some(instance)
}

/// Waits until all events are handled, a signal requests a stop, or a write fails. Returns the error of the reader if
/// the reader has failed. A reader that still blocks on input is not joined; it ends with the process.
fn watch(broker: &Broker, output: &Output, reader: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    while !output.has_ended() && !signals::stop_requested() {
        if reader.is_finished() && broker.stats().in_flight == 0 {
            return reader.join().unwrap_or_else(|_| Err(Failure::new("the reader panicked")));
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// Spawns the thread that flushes the output every 10 ms, so that no lines stay in the buffer when the input pauses.
fn spawn_flusher(output: &Arc<Output>) -> Result<JoinHandle<()>, Failure> {
    let output = Arc::clone(output);
    spawn("output", move || {
        while !output.is_finished() {
            thread::sleep(GLANCE);
            output.flush();
        }
    })
}

/// Waits for the last flush. After a signal, gives up 100 ms past the deadline if the reader of the output is stuck.
fn finish(output: &Output, flusher: &JoinHandle<()>, deadline: Instant) {
    output.finish();
    while !flusher.is_finished() {
        if signals::stop_requested() && Instant::now() > deadline + GLANCE * 10 {
            complain("eventbroker: standard output is blocked by its reader; the last lines in the buffer are lost");
            return;
        }
        thread::sleep(GLANCE);
    }
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| Failure::new(format_args!("cannot start a thread: {error}")))
}
