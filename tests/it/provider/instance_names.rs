//! Instance names: at a back end, one live process at a time has a name.

use eventbroker::error::StartError;
use eventbroker::{Broker, BrokerBuilder};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{PATIENCE, event, wait_until};

fn builder(loopback: &Loopback) -> BrokerBuilder {
    Broker::builder().worker_count(1).provider(loopback.provider())
}

#[test]
fn a_configured_name_that_is_taken_is_an_error_until_its_holder_stops() {
    let loopback = Loopback::new();
    let first = builder(&loopback).instance_id("shop-1").build().expect("the name is free");
    let taken = builder(&loopback)
        .instance_id("shop-1")
        .build()
        .map(drop)
        .expect_err("a broker that does not run yet has the name");
    assert_eq!(taken, StartError::InstanceTaken { id: "shop-1".to_owned() });
    assert!(taken.to_string().contains("shop-1"));
    drop(first);
    assert_eq!(builder(&loopback).instance_id("shop-1").build().expect("the name is free").instance_id(), "shop-1");
}

#[test]
fn a_default_name_that_is_taken_gets_a_number_which_events_carry() {
    let loopback = Loopback::new();
    let [first, second] = [(); 2].map(|()| builder(&loopback).start().expect("a running broker"));
    let name = first.instance_id().to_owned();
    assert_eq!(second.instance_id(), format!("{name}-2"));
    let id = second.publish(event("named.it")).expect("room").id;
    let published = first.get(&id).expect("the back end answers").expect("stored");
    assert_eq!(published.instance_id(), Some(second.instance_id()));
    drop(first);
    let third = builder(&loopback).start().expect("a running broker");
    assert_eq!(third.instance_id(), name, "the name is free again");
}

#[test]
fn a_name_is_claimed_after_an_outage_at_the_start() {
    let loopback = Loopback::new();
    loopback.set_unavailable(true);
    let first =
        builder(&loopback).instance_id("shop-1").start().expect("a back end that is away is no reason not to start");
    loopback.set_unavailable(false);
    loopback.wait_until("the name is claimed", |server| server.has_name("shop-1"));
    assert!(first.stop(PATIENCE).is_clean());
}

#[test]
fn a_name_that_was_taken_during_an_outage_is_reported() {
    let loopback = Loopback::new();
    loopback.set_unavailable(true);
    let late = builder(&loopback).instance_id("shop-1").start().expect("a running broker");
    loopback.take_name("shop-1");
    loopback.set_unavailable(false);
    wait_until("the statistics report the name", || {
        let error = late.stats().bridge.and_then(|bridge| bridge.last_error);
        error.is_some_and(|error| error.contains("shop-1"))
    });
    assert!(late.stop(PATIENCE).is_clean());
}
