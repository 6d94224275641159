//! Traces: the spans `publish` and `process`, and the context that connects them.
//!
//! The spans have the level DEBUG and the fields of OpenTelemetry's [conventions for messaging][semconv]. While no
//! subscriber enables DEBUG, a publish and an attempt each cost one load for them.
//!
//! | span | covers | parent |
//! |---|---|---|
//! | `publish` | a publish or a batch, until its outcome | the caller's span |
//! | `process` | one attempt: the call of the handler and its settlement | none; for `publish_sync` its `publish` |
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
//! | `error.type`, `otel.status_code` | [code](crate::PublishError::code), `ERROR` | `failed` or `permanent`, `ERROR` |
//!
//! A failed attempt is logged inside its span: WARN if it is retried, ERROR if the delivery becomes a dead letter.
//! Subscribers run on the threads that publish and handle. One that publishes events itself must ignore the target
//! `eventbroker`, or its publishes would cause more of them.
//!
//! # From the publisher to the handler
//! An event carries the context of its trace in the metadata entries `traceparent`, `tracestate` and `baggage`, as W3C
//! defines them, through every provider. [`EventBuilder::traceparent`](crate::EventBuilder::traceparent) sets one by
//! hand. A [`Propagator`] sets one for every event, and makes the attempts continue the trace; the package
//! `examples/opentelemetry` has one for OpenTelemetry. Without one, contexts are carried unchanged. The context is no
//! part of an event's [content](crate::Event::same_content): the same event with another context is a duplicate.
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

/// Carries the context of a trace into events and out of them.
///
/// Passed to [`BrokerBuilder::propagator`](crate::BrokerBuilder::propagator). Its methods are called on the threads
/// that publish and handle, and should be quick.
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
/// let stream = broker.stream("*")?;
/// broker.publish(Event::builder(Source::System, "a.b.c").build()?)?;
/// # use eventbroker::StreamItem;
/// let Ok(StreamItem::Event(event)) = stream.recv() else { panic!("it was published") };
/// assert!(event.traceparent().is_some_and(|it| it.starts_with("00-0af7651916cd43dd")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Propagator: Send + Sync {
    /// Sets the current context on an event that has no `traceparent`.
    ///
    /// Called for each such event that is published, inside the span `publish`. `set` adds an entry to the event's
    /// metadata; it leaves out an entry that would exceed a bound of metadata.
    fn inject(&self, set: &mut dyn FnMut(&str, String));

    /// Makes the span of an attempt continue the trace of its event.
    ///
    /// Called before the span is entered, if the event has a `traceparent` and the span is enabled and has no parent.
    /// By convention the context is the parent of the first attempt, and a link of the later ones.
    fn extract(&self, event: &Event, attempt: u32, span: &Span);
}

/// The propagator of one broker.
pub(crate) type SharedPropagator = Arc<dyn Propagator>;

/// Whether a publish needs a span or a context.
#[inline]
pub(crate) fn is_wanted(propagator: Option<&SharedPropagator>) -> bool {
    !is_off() || propagator.is_some()
}

/// Publishes an event, inside a span and with a context if these are wanted.
// Otherwise the event is moved on unchanged: a version that changes it in place here copies it each time.
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

pub(crate) fn batch_span() -> BatchSpan {
    if is_off() {
        return BatchSpan(None);
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
    BatchSpan(Some(span.entered()))
}

/// The span of a batch, if spans are enabled. Dropping it leaves the span.
#[must_use]
#[derive(Debug)]
pub(crate) struct BatchSpan(Option<EnteredSpan>);

impl BatchSpan {
    /// Records the number of events in the batch.
    pub(crate) fn count(&self, count: usize) {
        if let Some(span) = &self.0 {
            span.record("messaging.batch.message_count", count);
        }
    }
}

/// The current span of this thread, if spans are enabled.
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

/// Sets the current context on an event that has none.
pub(crate) fn inject(propagator: Option<&SharedPropagator>, event: &mut Event) {
    if let Some(propagator) = propagator
        && event.traceparent().is_none()
    {
        propagator.inject(&mut |name, value| event.carry(name, value));
    }
}

/// The span of an attempt, if spans are enabled. Dropping it leaves the span.
#[must_use]
#[derive(Debug)]
pub(crate) struct Processing(Option<EnteredSpan>);

#[inline]
pub(crate) fn enter_process_span(
    propagator: Option<&SharedPropagator>,
    subscription: &Subscription,
    delivery: &QueuedDelivery,
) -> Processing {
    Processing((!is_off()).then(|| process_span(propagator, subscription, delivery).entered()))
}

impl Processing {
    /// Records a failure that the handler reported.
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
