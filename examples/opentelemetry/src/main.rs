//! OpenTelemetry traces through the broker: the request, the publish and the handlers on other threads share one trace
//! id. The program prints the spans that a collector would receive, and exits.
//!
//! ```sh
//! cargo run -p eventbroker-example-opentelemetry
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbroker::trace::Propagator;
use eventbroker::{Broker, Event, RetryPolicy, Source, SubscribeOptions};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;

/// A propagator to copy into your program: W3C trace contexts in the metadata of events.
struct OpenTelemetry(TraceContextPropagator);

impl Propagator for OpenTelemetry {
    fn inject(&self, set: &mut dyn FnMut(&str, String)) {
        let mut entries = HashMap::new();
        self.0.inject_context(&Span::current().context(), &mut entries);
        entries.into_iter().for_each(|(name, value)| set(&name, value));
    }

    fn extract(&self, event: &Event, attempt: u32, span: &Span) {
        let text = |(name, value): (&String, &serde_json::Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let entries: HashMap<String, String> = event.metadata().iter().filter_map(text).collect();
        let context = self.0.extract(&entries);
        if attempt == 1 {
            // An error means that no subscriber records the span.
            let _ = span.set_parent(context);
        } else {
            span.add_link(context.span().span_context().clone());
        }
    }
}

/// Collects ended spans. A real program uses an OTLP exporter.
#[derive(Debug, Clone, Default)]
struct Collected(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("nobody panics under it").extend(batch);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let collected = Collected::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(collected.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    let broker = Broker::builder()
        .propagator(OpenTelemetry(TraceContextPropagator::new()))
        .retry_policy(RetryPolicy::fixed(1, Duration::from_millis(1)))
        .start()?;
    broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("warehouse"), |delivery| {
        // Events that a handler publishes belong to its trace.
        let mail = Event::builder(Source::System, "shop.mail.send").build();
        delivery.broker().zip(mail.ok()).map(|(broker, mail)| broker.publish(mail));
    })?;
    broker.subscribe_with(SubscribeOptions::new("shop.mail.*").name("mailer"), |delivery| {
        if delivery.attempt() == 1 { Err("no route to host") } else { Ok(()) }
    })?;

    tracing::info_span!("POST /orders").in_scope(|| {
        broker.publish(Event::builder(Source::Frontend, "shop.orders.create").build()?).map_err(Box::<dyn Error>::from)
    })?;
    // `stop` rejects new events, so wait until the handler has published the mail.
    while broker.stats().completed < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    broker.stop(Duration::from_secs(5));
    provider.shutdown()?;

    let mut spans = collected.0.lock().expect("nobody panics under it").clone();
    spans.sort_by_key(|span| span.start_time);
    for span in &spans {
        let trace = span.span_context.trace_id();
        println!("{trace}  {:16}  {:26}  {:?}", span.span_context.span_id(), span.name, span.span_kind);
    }
    let ids =
        |name: &str| spans.iter().filter(|it| it.name == name).map(|it| it.span_context.trace_id()).collect::<Vec<_>>();
    let request = ids("POST /orders")[0];
    for name in ["publish shop.orders.create", "process warehouse", "publish shop.mail.send"] {
        assert_eq!(ids(name), [request], "{name}");
    }
    let [first, retry] = ids("process mailer")[..] else { panic!("the mail was tried twice") };
    assert!(first == request && retry != request, "a retry is a trace of its own");
    let links = |it: &SpanData| it.links.iter().any(|link| link.span_context.trace_id() == request);
    assert!(spans.iter().any(|it| it.span_context.trace_id() == retry && links(it)), "it links to the first");
    println!("publisher and handlers share the trace {request}");
    Ok(())
}
