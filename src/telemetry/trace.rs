//! Traces: the spans `publish` and `process`, and the context that ties them together. What is logged about single trouble is
//! logged where the trouble is.
//!
//! The spans have the level DEBUG and the fields of OpenTelemetry's [conventions for messaging][semconv]. Without a subscriber that
//! wants them, a publish and an attempt each pay one load.
//!
//! | span | around | its parent |
//! |---|---|---|
//! | `publish` | a publish, or a batch, to its outcome | the caller's span |
//! | `process` | one attempt: the call of the handler, and what follows from its outcome | none; for `publish_sync` its `publish` |
//!
//! | field | `publish` | `process` |
//! |---|---|---|
//! | `otel.name`, `otel.kind` | `publish TYPE`, `producer` | `process SUBSCRIPTION`, `consumer` |
//! | `messaging.system` | `eventbroker` | the same |
//! | `messaging.operation.name`, `messaging.operation.type` | `publish`, `send` | `process`, `process` |
//! | `messaging.destination.name` | the event's type, not of a batch | the event's type |
//! | `messaging.destination.template` | | the pattern |
//! | `messaging.destination.subscription.name` | | the subscription's name |
//! | `messaging.message.id`, `messaging.message.body.size` | of the event, not of a batch | of the event |
//! | `messaging.batch.message_count` | of a batch | |
//! | `cloudevents.event_id`, `.event_source`, `.event_type` | of the event, not of a batch | of the event |
//! | `eventbroker.attempt` | | from 1 |
//! | `traceparent` | | the event's, if it has one |
//! | `error.type`, `otel.status_code` | the [code](crate::PublishError::code), `ERROR` | `failed` or `permanent`, `ERROR` |
//!
//! A failed attempt is logged inside its span: WARN if it is retried, ERROR if the delivery becomes a dead letter. Subscribers run on
//! the threads that publish and handle. One that publishes events of its own must leave out those of the target `eventbroker`.
//!
//! # From the publisher to the handler
//! The context of a trace travels as the metadata entries `traceparent`, `tracestate` and `baggage` of an event, as W3C defines them,
//! through every provider. [`EventBuilder::traceparent`](crate::EventBuilder::traceparent) sets one by hand. A [`Propagator`] does
//! it for every event, and makes the attempts continue the trace; the package `examples/opentelemetry` has one for OpenTelemetry.
//! Without one, contexts are carried and never changed. They are no part of what an event
//! [says](crate::Event::same_content): the same event with another context is a duplicate.
//!
//! [semconv]: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/

use std::sync::Arc;

use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::span::EnteredSpan;
use tracing::{Level, Span};

use crate::event::Event;
use crate::outcome::PublishError;
use crate::queue::QueuedDelivery;
use crate::subscription::{Outcome, Subscription};

/// Carries the context of a trace into events and out of them; what
/// [`BrokerBuilder::propagator`](crate::BrokerBuilder::propagator) takes. Its methods are called on the threads that publish and
/// handle, and should be quick.
///
/// ```
/// use eventbroker::trace::Propagator;
/// use eventbroker::{Broker, Event, Source};
///
/// struct Fixed;
///
/// impl Propagator for Fixed {
///     fn inject(&self, set: &mut dyn FnMut(&str, String)) {
///         set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
///     }
///     fn extract(&self, _event: &Event, _attempt: u32, _span: &tracing::Span) {}
/// }
///
/// let broker = Broker::builder().propagator(Fixed).start()?;
/// let seen = broker.stream("*")?;
/// broker.publish(Event::builder(Source::System, "a.b.c").build()?)?;
/// # use eventbroker::StreamItem;
/// let Ok(StreamItem::Event(event)) = seen.recv() else { panic!("it was published") };
/// assert!(event.traceparent().is_some_and(|it| it.starts_with("00-0af7651916cd43dd")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Propagator: Send + Sync {
    /// Gives the current context to an event that is being published and has no `traceparent`. Called inside the span `publish`, once
    /// for each event, with what takes the entries for its metadata; an entry that would break a bound of metadata is left out.
    fn inject(&self, set: &mut dyn FnMut(&str, String));

    /// Makes the span of an attempt continue the trace of its event. Called before the span is entered, if the event has a
    /// `traceparent` and the span is wanted and has no parent. The convention is a parent for the first attempt, and a link for those
    /// after it.
    fn extract(&self, event: &Event, attempt: u32, span: &Span);
}

/// What the engine keeps of it.
pub(crate) type SharedPropagator = Arc<dyn Propagator>;

/// Whether a publish has more to do than to publish.
#[inline]
pub(crate) fn is_wanted(propagator: Option<&SharedPropagator>) -> bool {
    !is_off() || propagator.is_some()
}

/// Publishes an event: inside a span, with a context, if anybody wants that.
// The event is passed on untouched otherwise; to change it in place here would cost a copy of it each time.
#[inline]
pub(crate) fn publish_in_span<T>(
    propagator: Option<&SharedPropagator>,
    event: Event,
    send: impl FnOnce(Event) -> Result<T, PublishError>,
) -> Result<T, PublishError> {
    if is_wanted(propagator) { publish_in_open_span(propagator, event, send) } else { send(event) }
}

#[cold]
fn publish_in_open_span<T>(
    propagator: Option<&SharedPropagator>,
    mut event: Event,
    send: impl FnOnce(Event) -> Result<T, PublishError>,
) -> Result<T, PublishError> {
    let span = publish_span(&event).entered();
    inject(propagator, &mut event);
    let outcome = send(event);
    if let Err(error) = &outcome {
        fail(&span, error.code());
    }
    outcome
}

/// Enters the span of a batch.
pub(crate) fn batch_span() -> Batch {
    if is_off() {
        return Batch(None);
    }
    let span = tracing::debug_span!(
        "publish",
        otel.name = "publish batch",
        otel.kind = "producer",
        messaging.system = "eventbroker",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.batch.message_count = Empty,
    );
    Batch(Some(span.entered()))
}

/// A batch under way: inside its span, if anybody wants that.
#[must_use]
#[derive(Debug)]
pub(crate) struct Batch(Option<EnteredSpan>);

impl Batch {
    /// Notes how many events there were.
    pub(crate) fn count(&self, count: usize) {
        if let Some(span) = &self.0 {
            span.record("messaging.batch.message_count", count);
        }
    }
}

/// The span that the current thread is in, if anybody wants spans.
#[inline]
pub(crate) fn current() -> Option<Span> {
    if is_off() { None } else { Some(Span::current()) }
}

#[inline]
fn is_off() -> bool {
    LevelFilter::current() < Level::DEBUG
}

fn publish_span(event: &Event) -> Span {
    let event_type = event.event_type().as_str();
    tracing::debug_span!(
        "publish",
        otel.name = format_args!("publish {event_type}"),
        otel.kind = "producer",
        messaging.system = "eventbroker",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = event_type,
        messaging.message.id = %event.id(),
        messaging.message.body.size = event.payload().as_bytes().len(),
        cloudevents.event_id = %event.id(),
        cloudevents.event_source = event.source().as_str(),
        cloudevents.event_type = event_type,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Gives an event the current context, if it has none.
pub(crate) fn inject(propagator: Option<&SharedPropagator>, event: &mut Event) {
    if let Some(propagator) = propagator
        && event.traceparent().is_none()
    {
        propagator.inject(&mut |name, value| event.carry(name, value));
    }
}

/// An attempt under way: inside its span, if anybody wants that.
#[must_use]
#[derive(Debug)]
pub(crate) struct Processing(Option<EnteredSpan>);

/// Enters the span of an attempt.
#[inline]
pub(crate) fn enter_process_span(
    propagator: Option<&SharedPropagator>,
    subscription: &Subscription,
    delivery: &QueuedDelivery,
) -> Processing {
    Processing((!is_off()).then(|| process_span(propagator, subscription, delivery).entered()))
}

impl Processing {
    /// Notes what the handler said.
    #[inline]
    pub(crate) fn note(&self, outcome: &Outcome) {
        if let Some(span) = &self.0 {
            match outcome {
                Outcome::Done | Outcome::Skip => {}
                Outcome::Retry(_) | Outcome::RetryAfter(..) => fail(span, "failed"),
                Outcome::Permanent(_) => fail(span, "permanent"),
            }
        }
    }
}

#[cold]
fn process_span(propagator: Option<&SharedPropagator>, subscription: &Subscription, delivery: &QueuedDelivery) -> Span {
    let (event, attempt) = (&delivery.record.event, delivery.attempts);
    let event_type = event.event_type().as_str();
    let parent = delivery.record.sync_wait().map_or_else(Span::none, |wait| wait.span());
    let span = tracing::debug_span!(
        parent: parent.id(),
        "process",
        otel.name = format_args!("process {}", subscription.name),
        otel.kind = "consumer",
        messaging.system = "eventbroker",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = event_type,
        messaging.destination.template = subscription.pattern.as_str(),
        messaging.destination.subscription.name = &*subscription.name,
        messaging.message.id = %event.id(),
        messaging.message.body.size = event.payload().as_bytes().len(),
        cloudevents.event_id = %event.id(),
        cloudevents.event_source = event.source().as_str(),
        cloudevents.event_type = event_type,
        eventbroker.attempt = attempt,
        traceparent = event.traceparent(),
        error.type = Empty,
        otel.status_code = Empty,
    );
    if let Some(propagator) = propagator
        && parent.is_none()
        && !span.is_disabled()
        && event.traceparent().is_some()
    {
        propagator.extract(event, attempt, &span);
    }
    span
}

fn fail(span: &Span, kind: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}
