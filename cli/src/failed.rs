//! `failed`: the dead letters of a back end.

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter, DeadReason};
use eventbroker::error::RequeueError;
use eventbroker::{Broker, EventId, Pattern};
use serde_json::{Value, json};

use crate::back_end::{STOP, Target, failure};
use crate::config::print_json;
use crate::exit::{Exit, Failure};
use crate::{print, times};

/// Options of `failed`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker failed list --subscription mailer --url sqlite:events.db
  eventbroker failed show 17 --url sqlite:events.db
  eventbroker failed retry 17 18 --url sqlite:events.db
  eventbroker failed retry --all --subscription mailer --reason exhausted --url sqlite:events.db
  eventbroker failed purge --all --pattern 'shop.carts.*' --url sqlite:events.db")]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List dead letters, the oldest first
    List(List),
    /// Show one dead letter with its event and the error of each attempt
    Show(Show),
    /// Requeue dead letters to the subscriptions that failed
    Retry(Chosen),
    /// Delete dead letters; their events stay failed
    Purge(Chosen),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    which: Which,
    /// Only dead letters with a higher number; to continue, give the last number listed
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Maximum number of dead letters
    #[arg(long, value_name = "LETTERS", default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    target: Target,
    /// Number of the dead letter
    number: u64,
}

#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    target: Target,
    /// Numbers of the dead letters
    #[arg(value_name = "NUMBER", required_unless_present = "all", conflicts_with = "all")]
    numbers: Vec<u64>,
    /// All dead letters that match and exist now
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// With --all: maximum number of dead letters [default: no limit]
    #[arg(long, value_name = "LETTERS", requires = "all")]
    limit: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Only dead letters of the subscription with this name
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
    /// Only dead letters whose event type matches this pattern
    #[arg(long, value_parser = Pattern::parse)]
    pattern: Option<Pattern>,
    /// Only dead letters with this reason: exhausted, permanent, crash_loop
    #[arg(long, value_parser = |word: &str| word.parse::<DeadReason>())]
    reason: Option<DeadReason>,
    /// Only dead letters of the event with this id
    #[arg(long, value_name = "ID", value_parser = EventId::parse)]
    event: Option<EventId>,
}

impl Which {
    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            name: self.subscription.clone(),
            event_id: self.event.clone(),
            event_type: self.pattern.clone(),
            reason: self.reason,
            ..DeadLetterFilter::default()
        }
    }
}

/// Runs the subcommand.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    match &options.verb {
        Verb::List(list) => with(&list.target, |broker| print_list(broker, list, json)),
        Verb::Show(show) => with(&show.target, |broker| print_one(broker, show.number, json)),
        Verb::Retry(chosen) => with(&chosen.target, |broker| retry(broker, chosen, json)),
        Verb::Purge(chosen) => with(&chosen.target, |broker| purge(broker, chosen, json)),
    }
}

fn with(target: &Target, act: impl FnOnce(&Broker) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let broker = target.start()?;
    let done = act(&broker);
    broker.stop(STOP);
    done
}

fn print_list(broker: &Broker, list: &List, json: bool) -> Result<Exit, Failure> {
    let (mut filter, mut left) = (DeadLetterFilter { after: list.after, ..list.which.filter() }, list.limit);
    while left > 0 {
        let wanted = left.min(1_000);
        filter.limit = Some(wanted);
        let letters = broker.dead_letters(&filter).map_err(failure)?;
        let line = |letter: &DeadLetter| if json { format!("{}\n", as_json(letter)) } else { as_line(letter) };
        print(letters.iter().map(line).collect::<String>().as_bytes())?;
        left -= letters.len();
        match letters.last().filter(|_| letters.len() == wanted) {
            Some(last) => filter.after = Some(last.id),
            None => break,
        }
    }
    Ok(Exit::Ok)
}

fn print_one(broker: &Broker, number: u64, json: bool) -> Result<Exit, Failure> {
    let filter = DeadLetterFilter { after: number.checked_sub(1), limit: Some(1), ..DeadLetterFilter::default() };
    let mut letters = broker.dead_letters(&filter).map_err(failure)?;
    let letter = letters.pop().filter(|letter| letter.id == number).ok_or_else(|| not_found(number))?;
    if json {
        return print_json(&as_json(&letter));
    }
    let mut text = format!(
        "number        {}\nsubscription  {}\nreason        {}\nattempts      {}\nrequeues      {}\nfirst failed  {}\ndied          {}\n",
        letter.id,
        letter.name,
        letter.reason.as_str(),
        letter.attempts,
        letter.requeues,
        times::text(letter.first_failed_at),
        times::text(letter.dead_at),
    );
    for error in &letter.errors {
        text.push_str(&format!("attempt {:<5} {}  {}\n", error.attempt, times::text(error.at), error.message));
    }
    text.push_str(&format!("event         {}\n", String::from_utf8_lossy(&letter.event.to_json())));
    print(text.as_bytes())
}

fn retry(broker: &Broker, chosen: &Chosen, json: bool) -> Result<Exit, Failure> {
    if chosen.all {
        let filter = DeadLetterFilter { limit: chosen.limit, ..chosen.which.filter() };
        let requeued = broker.requeue_matching(&filter).map_err(requeue_failure)?;
        return print_count("requeued", requeued, &[], json);
    }
    let (mut requeued, mut missing) = (0, Vec::new());
    for number in &chosen.numbers {
        match broker.requeue(*number) {
            Ok(()) => requeued += 1,
            Err(RequeueError::NotFound { .. }) => missing.push(*number),
            Err(error) => return Err(requeue_failure(error)),
        }
    }
    print_count("requeued", requeued, &missing, json)
}

fn purge(broker: &Broker, chosen: &Chosen, json: bool) -> Result<Exit, Failure> {
    if chosen.all {
        let filter = DeadLetterFilter { limit: chosen.limit, ..chosen.which.filter() };
        return print_count("purged", broker.purge_dead_letters(&filter).map_err(failure)?, &[], json);
    }
    let (mut purged, mut missing) = (0, Vec::new());
    for number in &chosen.numbers {
        // A filter has no number of its own: the first letter after `number - 1` is checked against `number`.
        let only = DeadLetterFilter { after: number.checked_sub(1), limit: Some(1), ..DeadLetterFilter::default() };
        let there = broker.dead_letters(&only).map_err(failure)?.iter().any(|letter| letter.id == *number);
        match there {
            true => purged += broker.purge_dead_letters(&only).map_err(failure)?,
            false => missing.push(*number),
        }
    }
    print_count("purged", purged, &missing, json)
}

/// Prints the count. Exit code 3 if none of the numbers given exists, 6 if some do not.
fn print_count(what: &str, count: usize, missing: &[u64], json: bool) -> Result<Exit, Failure> {
    if let ([first, ..], 0) = (missing, count) {
        return Err(not_found(*first));
    }
    if json {
        print_json(&json!({ what: count, "not_found": missing }))?;
    } else {
        let missing: String = missing.iter().map(|number| format!("there is no dead letter {number}\n")).collect();
        print(format!("{what} {count}\n{missing}").as_bytes())?;
    }
    Ok(if missing.is_empty() { Exit::Ok } else { Exit::PartlyFailed })
}

fn not_found(number: u64) -> Failure {
    Failure::not_found(format_args!("there is no dead letter {number}"))
}

fn requeue_failure(error: RequeueError) -> Failure {
    match error {
        RequeueError::BackEnd(error) => failure(error),
        other => Failure::new(other),
    }
}

fn as_line(letter: &DeadLetter) -> String {
    format!(
        "{:<6} {}  {}  {:<10} {} attempts  {}  {}  {}\n",
        letter.id,
        times::text(letter.dead_at),
        letter.name,
        letter.reason.as_str(),
        letter.attempts,
        letter.event.event_type(),
        letter.event.id(),
        letter.errors.last().map_or("-", |error| &error.message),
    )
}

fn as_json(letter: &DeadLetter) -> Value {
    let error = |error: &eventbroker::dead_letter::AttemptError| json!({ "attempt": error.attempt, "at": times::text(error.at), "message": error.message });
    json!({
        "number": letter.id,
        "subscription": &*letter.name,
        "reason": letter.reason.as_str(),
        "attempts": letter.attempts,
        "requeues": letter.requeues,
        "first_failed_at": times::text(letter.first_failed_at),
        "dead_at": times::text(letter.dead_at),
        "errors": letter.errors.iter().map(error).collect::<Vec<_>>(),
        "event": serde_json::from_slice::<Value>(&letter.event.to_json()).unwrap_or(Value::Null),
    })
}
