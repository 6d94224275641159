//! A server that is killed while it writes a consumer's state may lose the acknowledgements. Messages that the members
//! have recorded as acknowledged are not handled again, and later messages are delivered.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{PATIENCE, event, listen};
use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

const EVENTS: u64 = 300;

/// The files in which the server stores the state of its consumers.
fn states(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|it| it.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|it| it.is_dir());
    let state = files.into_iter().filter(|it| it.ends_with("o.dat"));
    state.chain(folders.iter().flat_map(|it| states(it))).collect()
}

#[test]
fn what_is_noted_as_acknowledged_is_not_handled_again() {
    let server = Server::start();
    let nats = Nats::new(server.url()).lease_time(Duration::from_millis(600));
    let start = || Broker::builder().provider(nats.open().expect("it opens")).start().expect("it starts");
    let work = || SubscribeOptions::new("work.*").name("all");
    let broker = start();
    let calls = listen(&broker, work());
    assert!(broker.publish_batch((0..EVENTS).map(|_| event("work.it"))).iter().all(Result::is_ok));
    (0..EVENTS).for_each(|_| _ = calls.recv_timeout(PATIENCE).expect("all are handled"));
    assert!(broker.stop(PATIENCE).is_clean());
    drop(broker);
    server.crash();
    let states = states(&server.folder());
    assert!(!states.is_empty());
    states.iter().for_each(|it| fs::write(it, "").expect("a file"));
    server.up();
    let broker = start();
    let calls = listen(&broker, work());
    let last = broker.publish(event("work.last")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(last), "nothing comes before it");
    assert!(broker.stop(PATIENCE).is_clean());
}
