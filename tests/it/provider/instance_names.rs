//! The name of an instance: one live process of a back end has it.

use eventbroker::error::StartError;
use eventbroker::{Broker, BrokerBuilder};
use eventbroker_conformance::loopback::Loopback;

use crate::support::{PATIENCE, event, wait_until};

fn builder(loopback: &Loopback) -> BrokerBuilder {
    Broker::builder().worker_count(1).provider(loopback.provider())
}

#[test]
fn a_configured_name_that_is_taken_is_an_error_and_free_again_when_its_holder_has_gone() {
    let loopback = Loopback::new();
    let first = builder(&loopback).instance_id("shop-1").build().expect("the name is free");
    let taken =
        builder(&loopback).instance_id("shop-1").build().map(drop).expect_err("a broker that does not run yet has it");
    assert_eq!(taken, StartError::InstanceTaken { id: "shop-1".to_owned() });
    assert!(taken.to_string().contains("shop-1"));
    drop(first);
    assert_eq!(builder(&loopback).instance_id("shop-1").build().expect("it is free").instance_id(), "shop-1");
}

#[test]
fn a_default_name_that_is_taken_gets_a_number_and_events_carry_it() {
    let loopback = Loopback::new();
    let [first, second] = [(); 2].map(|()| builder(&loopback).start().expect("it starts"));
    let name = first.instance_id().to_owned();
    assert_eq!(second.instance_id(), format!("{name}-2"));
    let id = second.publish(event("named.it")).expect("room").id;
    let published = first.get(&id).expect("it answers").expect("it is held");
    assert_eq!(published.instance_id(), Some(second.instance_id()));
    drop(first);
    let third = builder(&loopback).start().expect("it starts");
    assert_eq!(third.instance_id(), name, "it is free again");
}

#[test]
fn a_back_end_that_is_away_is_asked_for_the_name_when_it_is_back() {
    let loopback = Loopback::new();
    loopback.set_unavailable(true);
    let first =
        builder(&loopback).instance_id("shop-1").start().expect("a back end that is away is no reason not to start");
    loopback.set_unavailable(false);
    loopback.wait_until("it has the name", |server| server.has_name("shop-1"));
    assert!(first.stop(PATIENCE).is_clean());
}

#[test]
fn a_name_that_was_taken_meanwhile_is_said() {
    let loopback = Loopback::new();
    loopback.set_unavailable(true);
    let late = builder(&loopback).instance_id("shop-1").start().expect("it starts");
    loopback.take_name("shop-1");
    loopback.set_unavailable(false);
    wait_until("it is said", || {
        let error = late.stats().bridge.and_then(|bridge| bridge.last_error);
        error.is_some_and(|error| error.contains("shop-1"))
    });
    assert!(late.stop(PATIENCE).is_clean());
}
