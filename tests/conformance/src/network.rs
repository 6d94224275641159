//! A link between this machine and a network namespace of its own, which can be taken down: then nothing arrives, and nobody is told.

use std::process::{self, Command};

/// Two ends: one here, one in the namespace. Removed when it is dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
    here: String,
    there: String,
}

impl Network {
    /// Nothing where that is not permitted.
    pub fn new() -> Option<Self> {
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

    /// What has a program run in the namespace: it goes before the program's name.
    pub fn runner(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// The address of the namespace.
    pub fn there(&self) -> &str {
        &self.there
    }

    /// Takes the link down, or up again.
    pub fn set_up(&self, is_up: bool) {
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
