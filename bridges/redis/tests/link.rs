//! A network that is down and says nothing: a link to a namespace of its own, where the machine allows that, else a proxy that cuts.
//! `DOWN=60` has it down for so many seconds.

mod support;

use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use support::load;

/// A network of two ends: one here, one in a namespace of its own. Removed when it is dropped.
struct Network {
    name: String,
    here: String,
    there: String,
}

impl Network {
    /// Nothing where that is not permitted.
    fn new() -> Option<Self> {
        let pid = process::id();
        let subnet = format!("10.{}.{}", 200 + pid % 50, pid / 50 % 250);
        let network = Self { name: format!("broker{pid}"), here: format!("br{pid}"), there: format!("{subnet}.2") };
        let Self { name, here, there } = &network;
        let peer = format!("{here}p");
        let steps = [
            format!("netns add {name}"),
            format!("link add {here} type veth peer name {peer}"),
            format!("link set {peer} netns {name}"),
            format!("addr add {subnet}.1/30 dev {here}"),
            format!("link set {here} up"),
            format!("-n {name} addr add {there}/30 dev {peer}"),
            format!("-n {name} link set {peer} up"),
        ];
        steps.iter().all(|step| ip(step)).then_some(network)
    }

    fn set_up(&self, is_up: bool) {
        assert!(ip(&format!("link set {} {}", self.here, if is_up { "up" } else { "down" })));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Not all of it may have been made.
        ip(&format!("netns delete {}", self.name));
        ip(&format!("link delete {}", self.here));
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|it| it.status.success())
}

fn load(name: &str, redis: &Redis, set_up: impl Fn(bool)) {
    let broker = load::start(&redis.clone().lease_time(Duration::from_secs(2)));
    load::run(name, &broker, 100, |load| {
        set_up(false);
        thread::sleep(load::down(Duration::from_secs(3)));
        set_up(true);
        load.goes_on();
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}

#[test]
fn a_link_that_is_down_loses_nothing() {
    if let Some(network) = Network::new() {
        let runner = ["ip", "netns", "exec", &network.name];
        let server = Server::run_by(&runner, &["--bind", &network.there, "--protected-mode", "no"]);
        let redis = Redis::new(format!("redis://{}:{}", network.there, server.port()));
        load("a link that is down", &redis, |is_up| network.set_up(is_up));
        drop(server);
    } else {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let redis = Redis::new(format!("redis://127.0.0.1:{}", proxy.port()));
        load("a proxy that cuts (there may be no network namespace here)", &redis, |is_up| proxy.set_down(!is_up));
    }
}
