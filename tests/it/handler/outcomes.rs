//! Handler results: each form of return value maps to done, skipped, retry, retry after a delay, or permanent failure.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::error::DecodeError;
use eventbroker::{
    Broker, Delivery, Event, HandlerError, IntoOutcome, Outcome, RetryPolicy, Source, Status, SubscribeOptions, Verdict,
};

use crate::support::{Settlements, event, manual_clock, stats_of, wait_until};

/// The result of a delivery to a handler: verdict, attempts, error. The policy is one immediate retry.
fn end<R: IntoOutcome>(handler: impl Fn(&Delivery<'_>) -> R + Send + Sync + 'static) -> (Verdict, u32, Option<String>) {
    end_of(event("a"), handler)
}

fn end_of<R: IntoOutcome>(
    event: Event,
    handler: impl Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
) -> (Verdict, u32, Option<String>) {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("a").retry(RetryPolicy::fixed(1, Duration::ZERO));
    broker.subscribe_with(options, handler).expect("a subscription");
    broker.publish(event).expect("accepted");
    let end = settlements.next();
    (end.verdict, end.attempts, end.error)
}

fn done() -> (Verdict, u32, Option<String>) {
    (Verdict::Done, 1, None)
}

fn skipped() -> (Verdict, u32, Option<String>) {
    (Verdict::Skipped, 1, None)
}

/// The error after two attempts.
fn exhausted(error: &str) -> (Verdict, u32, Option<String>) {
    (Verdict::Dead, 2, Some(error.to_owned()))
}

/// The error after one attempt.
fn permanent(error: &str) -> (Verdict, u32, Option<String>) {
    (Verdict::Dead, 1, Some(error.to_owned()))
}

/// An error of an application.
#[derive(Debug)]
struct Unpaid(u32);

impl fmt::Display for Unpaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {} is not paid", self.0)
    }
}

impl Error for Unpaid {}

#[test]
fn the_unit_value_means_done() {
    assert_eq!(end(|_| ()), done());
    assert_eq!(end(|_| Ok::<(), String>(())), done());
    assert_eq!(end(|_| Ok::<(), HandlerError>(())), done());
    assert_eq!(end(|_| Ok::<(), Box<dyn Error>>(())), done());
}

#[test]
fn a_plain_outcome_sets_the_verdict() {
    assert_eq!(end(|_| Outcome::Done), done());
    assert_eq!(end(|_| Outcome::Skip), skipped());
    assert_eq!(end(|_| Outcome::Retry("busy".into())), exhausted("busy"));
    assert_eq!(end(|_| Outcome::RetryAfter(Duration::ZERO, "closed".into())), exhausted("closed"));
    assert_eq!(end(|_| Outcome::Permanent("gone".into())), permanent("gone"));
}

#[test]
fn an_outcome_in_a_result_sets_the_verdict() {
    assert_eq!(end(|_| Ok::<_, String>(Outcome::Done)), done());
    assert_eq!(end(|_| Ok::<_, String>(Outcome::Skip)), skipped());
    assert_eq!(end(|_| Ok::<_, io::Error>(Outcome::Retry("busy".into()))), exhausted("busy"));
    assert_eq!(end(|_| Ok::<_, HandlerError>(Outcome::Permanent("gone".into()))), permanent("gone"));
    assert_eq!(end(|_| Ok::<Result<(), &str>, String>(Err("inner"))), exhausted("inner"));
}

#[test]
fn an_error_of_any_type_means_retry() {
    assert_eq!(end(|_| Err::<(), _>("a text")), exhausted("a text"));
    assert_eq!(end(|_| Err::<(), _>(String::from("a string"))), exhausted("a string"));
    assert_eq!(end(|_| Err::<(), _>(io::Error::other("disk"))), exhausted("disk"));
    assert_eq!(end(|_| Err::<(), _>(Unpaid(7))), exhausted("order 7 is not paid"));
    assert_eq!(end(|_| Err::<Outcome, _>(Unpaid(8))), exhausted("order 8 is not paid"));
    assert_eq!(end(|_| Err::<(), Box<dyn Error>>("boxed".into())), exhausted("boxed"));
    assert_eq!(end(|_| Err::<(), Box<dyn Error + Send + Sync>>(Unpaid(9).into())), exhausted("order 9 is not paid"));
}

#[test]
fn the_question_mark_turns_errors_into_retries() {
    fn reads(_: &Delivery<'_>) -> Result<(), io::Error> {
        Err(io::ErrorKind::NotFound)?;
        Ok(())
    }
    fn mixes(delivery: &Delivery<'_>) -> Result<(), HandlerError> {
        if delivery.attempt() == 1 {
            Err(io::Error::other("disk"))?;
        }
        Err(Unpaid(1))?;
        Ok(())
    }
    fn boxes(_: &Delivery<'_>) -> Result<Outcome, Box<dyn Error>> {
        "seven".parse::<u32>()?;
        Ok(Outcome::Done)
    }
    assert_eq!(end(reads), exhausted(&io::Error::from(io::ErrorKind::NotFound).to_string()));
    assert_eq!(end(mixes), exhausted("order 1 is not paid"));
    assert_eq!(end(boxes), exhausted("invalid digit found in string"));
}

#[test]
fn a_handler_error_sets_the_verdict() {
    assert_eq!(end(|_| Err::<(), _>(HandlerError::retry("busy"))), exhausted("busy"));
    assert_eq!(end(|_| Err::<(), _>(HandlerError::retry_after(Duration::ZERO, "closed"))), exhausted("closed"));
    assert_eq!(end(|_| Err::<(), _>(HandlerError::permanent(Unpaid(3)))), permanent("order 3 is not paid"));
    assert_eq!(end(|_| Err::<Outcome, _>(HandlerError::permanent("gone"))), permanent("gone"));
    assert_eq!(end(|_| Err::<(), _>(HandlerError::skip())), skipped());
}

fn numbered(json: &str) -> Event {
    Event::builder(Source::System, "a").payload_json(json).build().expect("a valid event")
}

#[test]
fn a_payload_that_does_not_decode_is_permanent() {
    let (verdict, attempts, error) = end_of(numbered("\"seven\""), |delivery| {
        delivery.event().payload_as::<u32>()?;
        Ok::<(), HandlerError>(())
    });
    assert_eq!((verdict, attempts), (Verdict::Dead, 1));
    assert!(error.is_some_and(|error| error.starts_with("the payload does not decode: ")));

    let (verdict, attempts, _) = end_of(numbered("{}"), |delivery| delivery.event().payload_as::<u32>().map(drop));
    assert_eq!((verdict, attempts), (Verdict::Dead, 1));
    let decode = |delivery: &Delivery<'_>| -> Result<(), DecodeError> {
        delivery.event().payload_as::<u32>()?;
        Ok(())
    };
    assert_eq!(end_of(numbered("7"), decode), done());
}

#[test]
fn a_payload_that_does_not_decode_is_permanent_as_a_boxed_error_too() {
    let (verdict, attempts, _) = end_of(numbered("\"seven\""), |delivery| -> Result<(), Box<dyn Error>> {
        delivery.event().payload_as::<u32>()?;
        Ok(())
    });
    assert_eq!((verdict, attempts), (Verdict::Dead, 1));
    let (verdict, attempts, _) =
        end_of(numbered("\"seven\""), |delivery| -> Result<(), Box<dyn Error + Send + Sync>> {
            delivery.event().payload_as::<u32>()?;
            Ok(())
        });
    assert_eq!((verdict, attempts), (Verdict::Dead, 1));
}

#[test]
fn an_error_that_cannot_be_displayed_is_a_failed_attempt() {
    struct Undisplayable;
    impl fmt::Display for Undisplayable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no words")
        }
    }
    assert_eq!(end(|_| Err::<(), _>(Undisplayable)), exhausted("handler panicked: no words"));
}

#[test]
fn retry_after_replaces_the_delay_of_the_policy() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    // A probe whose retry is due at once: after its second attempt, the timer has read the clock.
    broker
        .subscribe_with(SubscribeOptions::new("b").retry(RetryPolicy::fixed(1, Duration::ZERO)), |delivery| {
            if delivery.attempt() == 1 { Err("not yet") } else { Ok(()) }
        })
        .expect("a subscription");
    let options = SubscribeOptions::new("a").name("s").retry(RetryPolicy::fixed(5, Duration::from_secs(3_600)));
    broker
        .subscribe_with(options, |delivery| match delivery.attempt() {
            1 => Err(HandlerError::retry_after(Duration::from_secs(5), "closed")),
            2 => Err(HandlerError::retry_after(Duration::from_secs(7), "closed")),
            _ => Ok(()),
        })
        .expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    for (attempt, delay) in [(1, 5), (2, 7)] {
        wait_until("the retry waits", || {
            let stats = stats_of(&broker, "s");
            (stats.waiting, stats.attempts, stats.running) == (1, attempt, 0)
        });
        clock.advance(Duration::from_secs(delay) - Duration::from_nanos(1));
        assert!(broker.publish_sync(event("b")).expect("accepted").is_success());
        assert_eq!(stats_of(&broker, "s").attempts, attempt, "the retry is not due yet");
        clock.advance(Duration::from_nanos(1));
    }
    let ends: Vec<_> = settlements.take(3).into_iter().map(|it| (it.event_type, it.verdict, it.attempts)).collect();
    let of_b = ("b".to_owned(), Verdict::Done, 2);
    assert_eq!(ends, [of_b.clone(), of_b, ("a".to_owned(), Verdict::Done, 3)]);
}

#[test]
fn the_event_and_the_dead_letter_record_the_error() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let retry = RetryPolicy::fixed(2, Duration::ZERO);
    broker
        .subscribe_with(SubscribeOptions::new("a").name("s").retry(retry), |delivery| {
            Err::<(), _>(format!("failure {}", delivery.attempt()))
        })
        .expect("a subscription");
    broker
        .subscribe_with(SubscribeOptions::new("b").name("p"), |_| Outcome::Permanent("gone".into()))
        .expect("another");
    for (event_type, status_error, reason, messages) in [
        ("a", "failure 3", DeadReason::Exhausted, &["failure 1", "failure 2", "failure 3"][..]),
        ("b", "gone", DeadReason::Permanent, &["gone"][..]),
    ] {
        let sent = event(event_type);
        broker.publish(sent.clone()).expect("accepted");
        assert_eq!(settlements.next().verdict, Verdict::Dead);
        let held = broker.get(sent.id()).expect("the memory store").expect("the event");
        assert_eq!((held.status(), held.error()), (Status::Failed, Some(status_error)));
        assert_eq!(held.retry_count() as usize, messages.len() - 1);
        let letters = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
        let letter = letters.last().expect("a dead letter");
        assert_eq!((letter.event.id(), letter.reason), (sent.id(), reason));
        assert_eq!(letter.attempts as usize, messages.len());
        assert!(letter.errors.iter().map(|error| error.message.as_str()).eq(messages.iter().copied()));
        assert!(letter.errors.iter().map(|error| error.attempt).eq(1..=letter.attempts));
    }
}
