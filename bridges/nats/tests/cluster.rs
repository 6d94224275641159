//! A cluster of three servers, each of which has all messages: one of them may die, whichever it is; if two are away, nothing is accepted, and
//! nothing is lost.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{PublishError, SubscribeOptions};
use eventbroker_conformance::load;
use eventbroker_conformance::nats::Cluster;
use eventbroker_conformance::watch::count_local;
use eventbroker_nats::Nats;

use support::client::Client;
use support::{PATIENCE, event, last_error, listen, start, wait_until};

/// So soon those that are left have agreed on new leaders: a follower waits 4 to 9 s for the old one.
const ELECTION: Duration = Duration::from_secs(15);

fn nats(cluster: &Cluster) -> Nats {
    Nats::new(cluster.url()).replicas(3).lease_time(Duration::from_secs(2))
}

#[test]
fn everything_is_kept_on_three_servers() {
    let cluster = Cluster::start();
    let broker = start(&nats(&cluster));
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    for _ in 0..100 {
        let id = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE).expect("it is handled"), id);
    }
    let mut client = Client::of(cluster.server(0));
    for of in [
        "STREAM.INFO.RESOLVESPEC_EVENTS",
        "STREAM.INFO.RESOLVESPEC_EVENTS_STATE",
        "CONSUMER.INFO.RESOLVESPEC_EVENTS.resolvespec-workers==all",
        "CONSUMER.INFO.RESOLVESPEC_EVENTS_STATE.resolvespec-workers==all",
    ] {
        let info: serde_json::Value = serde_json::from_str(&client.info(of)).expect("an answer");
        let replicas = info["cluster"]["replicas"].as_array().map_or(0, Vec::len);
        assert_eq!(replicas, 2, "beside the leader, of {of}: {info}");
    }
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn the_death_of_a_server_loses_nothing() {
    let cluster = Cluster::start();
    let broker = load::start(nats(&cluster).open().expect("it opens"));
    load::run_within(ELECTION, "a server of three dies", &broker, 100, |load| {
        for which in [2, 0] {
            let dying = cluster.server(cluster.followers_and_leader("RESOLVESPEC_EVENTS")[which]);
            dying.crash();
            let began = Instant::now();
            load.goes_on();
            println!("{}: it went on {:?} after", ["a follower", "", "the leader"][which], began.elapsed());
            dying.up();
            cluster.wait_for_leader();
            load.goes_on();
        }
    });
}
