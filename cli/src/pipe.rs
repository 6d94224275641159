//! `eventbroker pipe`: NDJSON in, through a broker, NDJSON out. Here are its options, and the thread that watches over the
//! others until the end. Reading is in `pipe/input.rs`, writing in `pipe/output.rs`, the command of `--exec` in
//! `pipe/exec.rs`, what `--status` writes in `pipe/status.rs`.

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

/// Events that wait for a handler, and ended ones that are still known by their id. Few, since a payload may have a
/// mebibyte.
const EVENTS_HELD: usize = 500;
/// Events that wait for a command: at a signal, few should be left.
const EVENTS_FOR_COMMANDS: usize = 16;
/// Failed commands that wait for their retry. When there are as many, no more is read.
const RETRIES_HELD: usize = 1_000;
/// After a signal, how long what was accepted may take.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the state of things is looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// How long the reader waits for room before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(100);
/// The type of the events by which a broker tells of its own dead letters.
const NOTICE_TYPE: &str = "eventbroker.dead_letter";

/// What `pipe` can be told.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker pipe --pattern 'shop.orders.*' < events.ndjson > orders.ndjson
  tail -f events.ndjson | eventbroker pipe --pattern '*.*.delete' --exec './archive' > archived.ndjson
  eventbroker pipe --pattern '*' --source frontend --cloudevents < mixed.ndjson > cloudevents.ndjson")]
#[command(after_help = "\
Each line of the input is an event: our JSON, or a CloudEvent 1.0 in structured JSON. A bad line is reported with its number
and the field at fault, the rest goes on, and the exit code is 6. Events come out in the order in which they came in; with
--exec, those of one key. An id that is among the last 500 events is a duplicate and not delivered again.")]
pub(crate) struct Options {
    /// Which events: `shop.orders.create`, `shop.*.create`, `shop.**`, `*` for all; an event is delivered once per pattern
    #[arg(long = "pattern", value_name = "PATTERN", required = true, value_parser = Pattern::parse)]
    patterns: Vec<Pattern>,
    /// Run this for each delivery, by `sh -c`, with the event as JSON on its standard input; exit code 0 is done (and the
    /// event is written), 75 is try again later, any other is failed. What it prints goes to standard error
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Also write, when an event has ended, a line with its final status and how each delivery ended
    #[arg(long)]
    status: bool,
    /// The source of CloudEvents that do not come from an eventbroker: database, websocket, frontend, system, internal
    #[arg(long, default_value = "internal", value_parser = |name: &str| name.parse::<Source>())]
    source: Source,
    /// Write CloudEvents instead of our JSON
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
            "cannot write to standard output: {error}. Mend that and run it again from the start"
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
    // Of its own, so that no notice of another broker passes for one of this.
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

/// Whether an event is not from the input, but tells of a dead letter of this very broker.
fn is_notice(event: &Event, instance: &str) -> bool {
    event.event_type().as_str() == NOTICE_TYPE
        && event.source() == Source::System
        && event.instance_id() == Some(instance)
}

/// Waits until all is done, a signal asks for the end, or the output has come to one. Gives the reader's error, if it has
/// ended with one; a reader that still waits for input is left alone, and ends with the process.
fn watch(broker: &Broker, output: &Output, reader: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    while !output.has_ended() && !signals::stop_requested() {
        if reader.is_finished() && broker.stats().in_flight == 0 {
            return reader.join().unwrap_or_else(|_| Err(Failure::new("the reader panicked")));
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// Writes out what waits in the buffer, so that the output is never far behind when the input pauses.
fn spawn_flusher(output: &Arc<Output>) -> Result<JoinHandle<()>, Failure> {
    let output = Arc::clone(output);
    spawn("output", move || {
        while !output.is_finished() {
            thread::sleep(GLANCE);
            output.flush();
        }
    })
}

/// Waits for the last flush; after a signal, not for long if the reader of the output takes nothing.
fn finish(output: &Output, flusher: &JoinHandle<()>, deadline: Instant) {
    output.finish();
    while !flusher.is_finished() {
        if signals::stop_requested() && Instant::now() > deadline + GLANCE * 10 {
            complain("eventbroker: the reader of the output takes nothing; the last lines in the buffer are lost");
            return;
        }
        thread::sleep(GLANCE);
    }
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| Failure::new(format_args!("cannot start a thread: {error}")))
}
