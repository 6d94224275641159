//! `tail`: follows the events of every instance, in the order of the back end.

use std::time::{Duration, Instant};

use eventbroker::{Event, EventId, Pattern, StartPosition};

use crate::back_end::{Target, failure};
use crate::exit::{Exit, Failure};
use crate::list::line;
use crate::{signals, times};

/// The longest wait of one read, and so how late a signal is noticed.
const GLANCE: Duration = Duration::from_millis(50);
/// The most events per read.
const PAGE: usize = 256;

/// Options of `tail`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker tail --url sqlite:events.db
  eventbroker tail --pattern 'shop.orders.*' --from 1h --json --url sqlite:events.db | jq .payload
  eventbroker tail --from earliest --limit 10 --url sqlite:events.db")]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Only events whose type matches: `shop.orders.create`, `shop.*.create`, `shop.**`, `*` for all
    #[arg(long, default_value = "*", value_parser = Pattern::parse)]
    pattern: Pattern,
    /// Start position: `new`, `earliest`, a time, or a duration ago
    #[arg(long, default_value = "new", value_parser = position)]
    from: StartPosition,
    /// Start after the event with this id
    #[arg(long, value_name = "ID", value_parser = EventId::parse, conflicts_with = "from")]
    after: Option<EventId>,
    /// Exit after this number of events
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
    /// Exit after this duration
    #[arg(long = "for", value_name = "DURATION", value_parser = times::duration)]
    lasts: Option<Duration>,
}

fn position(text: &str) -> Result<StartPosition, String> {
    match text {
        "new" => Ok(StartPosition::New),
        "earliest" => Ok(StartPosition::Earliest),
        _ => times::time(text).map(StartPosition::From),
    }
}

/// Prints events until the limit, the time or a signal ends it.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let provider = options.target.open()?;
    let Some(operator) = provider.operator.as_ref().filter(|_| provider.capabilities.tail) else {
        return Err(Failure::usage(format_args!("the back end {} can't follow events", provider.name)));
    };
    let start = options.after.clone().map_or_else(|| options.from.clone(), StartPosition::After);
    let mut tail = operator.tail(&options.pattern, &start).map_err(failure)?;
    let deadline = options.lasts.map(|lasts| Instant::now() + lasts);
    let mut left = options.limit.unwrap_or(u64::MAX);
    loop {
        if let Some(signal) = signals::received() {
            return Ok(Exit::Signal(signal));
        }
        let remaining = deadline.map_or(GLANCE, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left == 0 || remaining.is_zero() {
            return Ok(Exit::Ok);
        }
        let page = usize::try_from(left).unwrap_or(usize::MAX).min(PAGE);
        let events = tail.next(page, remaining.min(GLANCE)).map_err(failure)?;
        left -= events.len() as u64;
        let text: String = events.iter().map(|event: &Event| line(event, json)).collect();
        if print_or_end(&text)? {
            return Ok(Exit::Ok);
        }
    }
}

/// Prints the text. Returns true if the reader has closed the pipe.
fn print_or_end(text: &str) -> Result<bool, Failure> {
    use std::io::Write as _;
    if text.is_empty() {
        return Ok(false);
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(Failure::new(format_args!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(false),
    }
}
