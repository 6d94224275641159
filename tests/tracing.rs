//! Tracing: a span for each publish and each attempt, their relations, and the log records of failures. A process of
//! its own, because it sets the global subscriber.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use eventbroker::hooks::{CrudHooksConfig, HookContext, HookRegistry, Operation, register_crud_hooks};
use eventbroker::trace::Propagator;
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, Source, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Span, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

const DRAIN: Duration = Duration::from_secs(10);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Fields = BTreeMap<&'static str, String>;

/// A span that the subscriber recorded.
#[derive(Debug, Clone)]
struct Seen {
    id: u64,
    name: &'static str,
    level: Level,
    parent: Option<u64>,
    fields: Fields,
    closed: bool,
}

/// A log record, with the span that it was written in.
#[derive(Debug, Clone)]
struct Logged {
    level: Level,
    span: Option<u64>,
    fields: Fields,
}

#[derive(Default)]
struct Log {
    spans: Vec<Seen>,
    logged: Vec<Logged>,
}

/// All spans and log records of this process; each test finds its own by the types of its events.
static LOG: LazyLock<Arc<Mutex<Log>>> = LazyLock::new(|| {
    let log = Arc::new(Mutex::new(Log::default()));
    let subscriber = Registry::default().with(Recorder(Arc::clone(&log)));
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    log
});

/// Keeps a worker in the end of the span of an attempt on `turn.it`, until the next attempt begins or the time is over.
static NEXT_ATTEMPT: Mutex<Option<Receiver<()>>> = Mutex::new(None);

struct Recorder(Arc<Mutex<Log>>);

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// The place of a span in the log. The registry reuses the ids of closed spans.
struct Number(u64);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        let span = context.span(id).expect("a new span");
        let number =
            |span: tracing_subscriber::registry::SpanRef<'_, S>| span.extensions().get::<Number>().map(|it| it.0);
        let parent = span.parent().and_then(number);
        let mut log = self.0.lock();
        let id = log.spans.len() as u64;
        span.extensions_mut().insert(Number(id));
        let metadata = attributes.metadata();
        log.spans.push(Seen { id, name: metadata.name(), level: *metadata.level(), parent, fields, closed: false });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let number = context.span(id).and_then(|span| span.extensions().get::<Number>().map(|it| it.0)).expect("known");
        values.record(&mut Visitor(&mut self.0.lock().spans[number as usize].fields));
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let span = context.event_span(event).and_then(|span| span.extensions().get::<Number>().map(|it| it.0));
        self.0.lock().logged.push(Logged { level: *event.metadata().level(), span, fields });
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let number = context.span(id).and_then(|span| span.extensions().get::<Number>().map(|it| it.0)).expect("known");
        let is_held = {
            let span = &self.0.lock().spans[number as usize];
            span.name == "process" && span.fields.get("cloudevents.event_type").is_some_and(|it| it == "turn.it")
        };
        let next = is_held.then(|| NEXT_ATTEMPT.lock().take()).flatten();
        // The test notices by itself that no attempt has begun.
        let _ = next.map(|next| next.recv_timeout(DRAIN));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let number =
            context.span(&id).and_then(|span| span.extensions().get::<Number>().map(|it| it.0)).expect("known");
        self.0.lock().spans[number as usize].closed = true;
    }
}

/// The spans of a name about events of a type.
fn spans(name: &str, event_type: &str) -> Vec<Seen> {
    let about =
        |it: &&Seen| it.name == name && it.fields.get("cloudevents.event_type").is_some_and(|it| it == event_type);
    LOG.lock().spans.iter().filter(about).cloned().collect()
}

/// The log records about events of a type.
fn logged(event_type: &str) -> Vec<Logged> {
    logged_with("event_type", event_type)
}

/// The log records with a field of this value.
fn logged_with(field: &str, value: &str) -> Vec<Logged> {
    LOG.lock().logged.iter().filter(|it| it.fields.get(field).is_some_and(|it| it == value)).cloned().collect()
}

fn event(event_type: &str) -> Event {
    Event::builder(Source::Database, event_type).id(event_type).payload(&"four").build().expect("valid")
}

fn broker() -> Broker {
    LazyLock::force(&LOG);
    Broker::builder().retry_policy(RetryPolicy::fixed(1, Duration::from_millis(1))).start().expect("a running broker")
}

fn assert_fields(seen: &Seen, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(seen.fields.get(name).map(String::as_str), Some(*value), "{name}: {seen:?}");
    }
}

#[test]
fn each_publish_and_each_attempt_has_a_span_with_the_fields_of_the_convention() {
    let broker = broker();
    broker.subscribe_with(SubscribeOptions::new("fields.*.it").name("mailer"), |_| ()).expect("subscribed");
    broker.publish(event("fields.all.it")).expect("accepted");
    broker.stop(DRAIN);
    let both = [
        ("messaging.system", "eventbroker"),
        ("messaging.destination.name", "fields.all.it"),
        ("messaging.message.id", "fields.all.it"),
        ("messaging.message.body.size", "6"),
        ("cloudevents.event_id", "fields.all.it"),
        ("cloudevents.event_source", "database"),
    ];
    let [publish] = &spans("publish", "fields.all.it")[..] else { panic!("one publish") };
    assert_fields(publish, &both);
    assert_fields(
        publish,
        &[
            ("otel.name", "publish fields.all.it"),
            ("otel.kind", "producer"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
        ],
    );
    let [process] = &spans("process", "fields.all.it")[..] else { panic!("one attempt") };
    assert_fields(process, &both);
    assert_fields(
        process,
        &[
            ("otel.name", "process mailer"),
            ("otel.kind", "consumer"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.template", "fields.*.it"),
            ("messaging.destination.subscription.name", "mailer"),
            ("eventbroker.attempt", "1"),
        ],
    );
    assert_eq!((publish.level, process.level), (Level::DEBUG, Level::DEBUG));
    for absent in ["error.type", "otel.status_code", "traceparent"] {
        assert!(!publish.fields.contains_key(absent) && !process.fields.contains_key(absent), "{absent}");
    }
}

#[test]
fn a_handler_runs_inside_its_span_which_has_no_parent() {
    let broker = broker();
    broker.subscribe("inside.*", |_| tracing::info!(event_type = "inside.it", "handling")).expect("subscribed");
    broker.publish(event("inside.it")).expect("accepted");
    broker.stop(DRAIN);
    let [process] = &spans("process", "inside.it")[..] else { panic!("one attempt") };
    assert_eq!(process.parent, None);
    assert_eq!(logged("inside.it")[0].span, Some(process.id));
}

#[test]
fn a_synchronous_attempt_is_a_child_of_its_publish_on_every_thread() {
    let broker = broker();
    for name in ["one", "two"] {
        broker.subscribe_with(SubscribeOptions::new("sync.it").name(name), |_| ()).expect("subscribed");
    }
    let outer = tracing::info_span!("outer");
    outer.in_scope(|| broker.publish_sync(event("sync.it")).expect("handled"));
    // An open attempt keeps its parent open.
    broker.stop(DRAIN);
    let [publish] = &spans("publish", "sync.it")[..] else { panic!("one publish") };
    let parent = publish.parent.expect("the caller's span");
    assert_eq!(LOG.lock().spans[parent as usize].name, "outer");
    let attempts = spans("process", "sync.it");
    assert_eq!(attempts.iter().map(|it| it.parent).collect::<Vec<_>>(), [Some(publish.id); 2]);
    // The store keeps the event, but not the span.
    assert!(publish.closed);
}

#[test]
fn a_failed_attempt_logs_a_warning_and_a_dead_letter_an_error_each_in_its_span() {
    let broker = broker();
    broker
        .subscribe_with(SubscribeOptions::new("failing.it").name("s"), |_| Err::<(), _>("no luck"))
        .expect("subscribed");
    broker.publish(event("failing.it")).expect("accepted");
    broker.stop(DRAIN);
    let [first, second] = &spans("process", "failing.it")[..] else { panic!("two attempts") };
    assert_fields(first, &[("eventbroker.attempt", "1"), ("error.type", "failed"), ("otel.status_code", "ERROR")]);
    assert_fields(second, &[("eventbroker.attempt", "2"), ("error.type", "failed"), ("otel.status_code", "ERROR")]);
    let [retry, dead] = &logged("failing.it")[..] else { panic!("{:?}", logged("failing.it")) };
    assert_eq!((retry.level, retry.span), (Level::WARN, Some(first.id)));
    assert_eq!((dead.level, dead.span), (Level::ERROR, Some(second.id)));
    assert_eq!((retry.fields["error"].as_str(), retry.fields["attempt"].as_str()), ("no luck", "1"));
    assert_eq!((dead.fields["reason"].as_str(), dead.fields["attempts"].as_str()), ("exhausted", "2"));
    assert_eq!((dead.fields["subscription"].as_str(), dead.fields["event"].as_str()), ("s", "failing.it"));
}

#[test]
fn a_permanent_failure_has_an_error_type_of_its_own() {
    let broker = broker();
    broker.subscribe("permanent.it", |_| Err::<(), _>(HandlerError::permanent("never"))).expect("subscribed");
    broker.publish(event("permanent.it")).expect("accepted");
    broker.stop(DRAIN);
    let [process] = &spans("process", "permanent.it")[..] else { panic!("one attempt") };
    assert_fields(process, &[("error.type", "permanent"), ("otel.status_code", "ERROR")]);
    assert_eq!(logged("permanent.it").len(), 1);
}

#[test]
fn the_span_of_a_refused_publish_has_the_reason() {
    let broker = broker();
    broker.stop(DRAIN);
    broker.publish(event("refused.it")).expect_err("it has stopped");
    let [publish] = &spans("publish", "refused.it")[..] else { panic!("one publish") };
    assert_fields(publish, &[("error.type", "not_running"), ("otel.status_code", "ERROR")]);
}

#[test]
fn every_way_to_publish_has_its_span_and_a_batch_has_one() {
    let broker = broker();
    broker.publish_async(event("ways.async")).expect("accepted").wait(DRAIN).expect("accepted");
    broker.publish_sync(event("ways.sync")).expect("accepted");
    broker.publisher(Source::Database, "ways.kept").expect("valid").publish(event("ways.kept")).expect("accepted");
    for event_type in ["ways.async", "ways.sync", "ways.kept"] {
        assert_eq!(spans("publish", event_type).len(), 1, "{event_type}");
    }
    broker.publish_batch((0..37).map(|_| support::event("ways.batch")));
    let batch = |it: &&Seen| it.fields.get("messaging.batch.message_count").is_some_and(|it| it == "37");
    assert_eq!(LOG.lock().spans.iter().filter(batch).count(), 1);
    assert!(spans("publish", "ways.batch").is_empty());
}

/// Records the span of each of its calls, and their arguments.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

impl Propagator for Noted {
    fn inject(&self, set: &mut dyn FnMut(&str, String)) {
        let name = Span::current().metadata().map_or("nowhere", |it| it.name());
        self.0.lock().push(format!("inject in {name}"));
        set("traceparent", TRACE.to_owned());
        set("tracestate", "a=1".to_owned());
        // Too large for metadata, so the broker leaves it out.
        set("baggage", "x".repeat(70_000));
    }

    fn extract(&self, event: &Event, attempt: u32, span: &Span) {
        let name = span.metadata().map_or("nothing", |it| it.name());
        let is_entered = Span::current().id() == span.id();
        self.0.lock().push(format!("extract {attempt} for {name}, entered: {is_entered}, {:?}", event.traceparent()));
    }
}

#[test]
fn a_propagator_injects_contexts_into_events_and_extracts_them_in_attempts() {
    LazyLock::force(&LOG);
    let noted = Noted::default();
    let retry = RetryPolicy::fixed(1, Duration::from_millis(1));
    let broker = Broker::builder().retry_policy(retry).propagator(noted.clone()).start().expect("a running broker");
    broker.subscribe("carried.it", |delivery| if delivery.attempt() == 1 { Err("again") } else { Ok(()) }).expect("ok");
    broker.publish(event("carried.it")).expect("accepted");
    support::wait_until("it is handled", || broker.stats().completed == 1);
    let stored = broker.get(event("carried.it").id()).expect("memory").expect("it is there");
    assert_eq!((stored.traceparent(), &stored.metadata()["tracestate"]), (Some(TRACE), &"a=1".into()));
    assert_eq!(stored.metadata().len(), 2);
    assert_fields(&spans("process", "carried.it")[0], &[("traceparent", TRACE)]);
    let about = format!("{:?}", Some(TRACE));
    let expected = [
        "inject in publish".to_owned(),
        format!("extract 1 for process, entered: false, {about}"),
        format!("extract 2 for process, entered: false, {about}"),
    ];
    assert_eq!(*noted.0.lock(), expected);
}

#[test]
fn a_propagator_keeps_a_given_context_and_skips_synchronous_attempts() {
    LazyLock::force(&LOG);
    let noted = Noted::default();
    let broker = Broker::builder().propagator(noted.clone()).start().expect("a running broker");
    broker.subscribe("own.it", |_| ()).expect("subscribed");
    let own = "00-11111111111111111111111111111111-2222222222222222-00";
    let event = Event::builder(Source::System, "own.it").traceparent(own).build().expect("valid");
    let id = event.id().clone();
    broker.publish_sync(event).expect("handled");
    assert_eq!(broker.get(&id).expect("memory").expect("there").traceparent(), Some(own));
    assert_eq!(*noted.0.lock(), Vec::<String>::new());
    broker.publish_batch([support::event("own.batch"), support::event("own.batch")]);
    assert_eq!(*noted.0.lock(), ["inject in publish", "inject in publish"]);
}

#[test]
fn a_hook_whose_names_make_no_event_type_logs_the_lost_event_with_the_reason() {
    let broker = broker();
    let registry = HookRegistry::new();
    let published = register_crud_hooks(&broker, &registry, CrudHooksConfig::default());
    for (schema, entity) in [("shop", ""), ("", ""), ("my shop", "orders"), ("shop", "*"), (".", "orders")] {
        registry.run_after(Operation::Delete, &HookContext::new(schema, entity).with_row_id(5));
    }
    assert_eq!((published.accepted(), published.refused()), (0, 5));
    let lost = logged_with("message", "an operation's event was lost");
    assert_eq!(lost.len(), 5, "{lost:?}");
    assert!(lost.iter().all(|it| it.fields["row_id"] == "5"), "{lost:?}");
    assert!(lost[0].fields["reason"].contains("invalid event: entity: is empty"), "{lost:?}");
    assert!(lost[2].fields["reason"].contains("invalid event: type: holds ' ' at byte 2"), "{lost:?}");
}

#[test]
fn a_failing_hook_is_logged_with_its_name() {
    LazyLock::force(&LOG);
    let registry = HookRegistry::new();
    registry.after(Operation::Update, "newsletter", |_| Err("no paper".into()));
    registry.run_after(Operation::Update, &HookContext::new("shop", "orders"));
    let failed = logged_with("hook", "newsletter");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].fields["reason"], "no paper");
}

#[test]
fn the_retry_of_a_suspect_begins_while_the_span_of_its_first_attempt_ends() {
    LazyLock::force(&LOG);
    let loopback = Loopback::new();
    let start = || {
        let retry = RetryPolicy::fixed(1, Duration::from_millis(1));
        Broker::builder().retry_policy(retry).provider(loopback.provider()).start().expect("a running broker")
    };
    let options = || SubscribeOptions::new("turn.*").name("turn").concurrency(2).queue_capacity(1);
    let (one, two) = (start(), start());
    let (begun, begins) = channel();
    let (end, ends) = channel::<()>();
    let ends = Mutex::new(ends);
    one.subscribe_with(options(), move |_| {
        begun.send(()).expect("the test waits");
        // An error means that the test has ended.
        let _ = ends.lock().recv();
    })
    .expect("subscribed");
    one.publish(event("turn.it")).expect("accepted");
    begins.recv_timeout(DRAIN).expect("it is called");
    one.stats().subscriptions.iter().for_each(|it| assert!(one.pause(it.id).is_ok()));
    loopback.crash_holders(1);
    let (next, next_attempt) = channel();
    *NEXT_ATTEMPT.lock() = Some(next_attempt);
    let (sender, held) = channel();
    two.subscribe_with(options(), move |delivery| {
        if delivery.attempt() == 1 {
            return Err("not yet");
        }
        // Fails if the span of the first attempt has ended.
        sender.send(next.send(()).is_ok()).expect("the test waits");
        Ok(())
    })
    .expect("subscribed");
    assert_eq!(held.recv_timeout(DRAIN / 2), Ok(true));
    loopback.wait_until("it is settled", |server| server.done("turn") == 1);
    drop(end);
    assert!(two.stop(DRAIN).is_clean());
    one.stop(DRAIN);
}
