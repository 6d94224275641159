//! A veth link to a network namespace. When the link is down, packets are dropped without an error at either end.

use std::process::{self, Command};

/// The link: one end on this host, one in the namespace. Removed on drop.
#[derive(Debug)]
pub struct Network {
    name: String,
    here: String,
    there: String,
}

impl Network {
    /// Creates the namespace and the link. `None` where that is not permitted.
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

    /// The command prefix that runs a program in the namespace.
    pub fn runner(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// The IP address in the namespace.
    pub fn there(&self) -> &str {
        &self.there
    }

    /// Sets the link up or down.
    pub fn set_up(&self, is_up: bool) {
        assert!(ip(&format!("link set {} {}", self.here, if is_up { "up" } else { "down" })));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Creation may have failed halfway.
        ip(&format!("netns delete {}", self.name));
        ip(&format!("link delete {}", self.here));
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|it| it.status.success())
}
