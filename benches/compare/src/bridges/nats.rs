//! NATS JetStream: one server per run, one stream per turn. By hand: the async-nats client in a runtime of one thread,
//! which publishes the same messages with a bound on acknowledgements in flight, or fetches 1,000 at a time and
//! acknowledges each.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture as _};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Context};
use eventbroker::provider::Provider;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;
use futures_util::StreamExt as _;

use super::{Contestant, Site, compare, consume, event, latency, prepare, publish, publish_buffered};
use crate::harness::Plan;
use crate::report::{Bound, Goal, Section};

const EIGHT: &str = "by hand, 8 in flight";
const LARGE: &str = "by hand, 256 in flight";
const LOOP: &str = "by hand, 1 loop";
/// `max_age` of the streams, longer than any run.
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Streams {
    server: Server,
}

impl Site for Streams {
    fn fresh(&self) -> String {
        self.server.fresh_name()
    }

    fn remove(&self, stream: &str) {
        self.on_client(|context| async move {
            for name in [stream.to_owned(), format!("{stream}_STATE")] {
                context.delete_stream(name).await.expect("it is removed");
            }
        });
    }

    fn provider(&self, stream: &str) -> Provider {
        Nats::new(self.server.url()).stream_name(stream).subject_prefix(stream).max_age(DAY).open().expect("it opens")
    }
}

impl Streams {
    /// Runs work on the client in a runtime of one thread.
    fn on_client<T, F: Future<Output = T>>(&self, work: impl FnOnce(Context) -> F) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = async_nats::connect(self.server.url()).await.expect("it connects");
            work(jetstream::new(client)).await
        })
    }
}

pub(crate) fn run(plan: &Plan) -> Section {
    let events = plan.pick(60_000, 2_000);
    let site = &Streams { server: Server::start() };
    let storing = [
        Contestant::by_hand("8 in flight", |stream| store_by_hand(site, stream, events, 8)),
        Contestant::by_hand("256 in flight", |stream| store_by_hand(site, stream, events, 256)),
        Contestant::ours("publish, 8 threads", |stream| publish(site, stream, events / 2, 8, 1)),
        Contestant::ours("publish, 64 threads", |stream| publish(site, stream, events, 64, 1)),
        Contestant::ours("publish_batch(64), 8 threads", |stream| publish(site, stream, events, 8, 64)),
        Contestant::ours("publish, buffered", |stream| publish_buffered(site, stream, events)),
    ];
    let storing = compare(plan, site, "storing", &[EIGHT, LARGE], &storing);
    let handling = [
        Contestant::by_hand("1 loop", |stream| consume_by_hand(site, stream, events)),
        Contestant::ours("broker", |stream| consume(site, stream, events)),
    ];
    let handling = compare(plan, site, "handling with acknowledgement", &[LOOP], &handling);
    let latency = latency(plan, site);
    let goal = |what: &str, figure, bound| Goal::new("P8", format!("NATS: {what}"), figure, bound);
    let goals = vec![
        goal("confirmed, 8 threads", storing.ratio("publish, 8 threads", EIGHT), Bound::AtLeast(0.7)),
        goal("publish_batch(64)", storing.ratio("publish_batch(64), 8 threads", LARGE), Bound::AtLeast(0.5)),
        goal("buffered", storing.ratio("publish, buffered", LARGE), Bound::AtLeast(0.8)),
        goal("consuming", handling.ratio("broker", LOOP), Bound::AtLeast(0.8)),
        goal("publish to handler, p50 in ms", latency.figure("p50"), Bound::AtMost(2.0)),
        goal("publish to handler, p99 in ms", latency.figure("p99"), Bound::AtMost(10.0)),
    ];
    Section {
        name: "nats",
        title: "NATS JetStream",
        method: "One local server, file streams, a new stream per turn. By hand: the async-nats client in a runtime of one thread, \
                 which publishes the same messages with this many acknowledgements in flight, or fetches 1,000 at a time from a \
                 durable consumer and acknowledges each.",
        tables: vec![storing, handling, latency],
        goals,
    }
}

/// The headers of a message as the provider writes them.
fn headers(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let others = [("Event-Type", "shop.orders.create"), ("Event-Source", "system"), ("Event-Status", "pending")];
    for (name, value) in [("Nats-Msg-Id", id), ("Event-ID", id), ("Instance-ID", "hand")].into_iter().chain(others) {
        headers.insert(name, value);
    }
    headers
}

fn store_by_hand(site: &Streams, stream: &str, events: u64, in_flight: usize) -> f64 {
    prepare(site, stream, 0);
    site.on_client(|context| async move {
        let subject = format!("{stream}.system.shop.orders.create");
        let began = Instant::now();
        let mut open = VecDeque::new();
        for _ in 0..events {
            if open.len() >= in_flight {
                let oldest: jetstream::context::PublishAckFuture = open.pop_front().expect("one");
                oldest.into_future().await.expect("it is stored");
            }
            let one = event().instance_id("hand").build().expect("a valid event");
            let headers = headers(&one.id().to_string());
            let sent = context.publish_with_headers(subject.clone(), headers, one.to_json().into()).await;
            open.push_back(sent.expect("it is sent"));
        }
        for rest in open {
            rest.into_future().await.expect("it is stored");
        }
        events as f64 / began.elapsed().as_secs_f64()
    })
}

fn consume_by_hand(site: &Streams, stream: &str, events: u64) -> f64 {
    prepare(site, stream, events);
    site.on_client(|context| async move {
        let found = context.get_stream(stream).await.expect("the stream");
        let consumer: PullConsumer = found.get_consumer("resolvespec-workers==all").await.expect("the consumer");
        let began = Instant::now();
        let mut done = 0;
        while done < events {
            let mut batch = consumer.fetch().max_messages(1_000).messages().await.expect("messages");
            let before = done;
            while let Some(message) = batch.next().await {
                message.expect("a message").ack().await.expect("it is acknowledged");
                done += 1;
            }
            if done == before {
                break;
            }
        }
        done as f64 / began.elapsed().as_secs_f64()
    })
}
