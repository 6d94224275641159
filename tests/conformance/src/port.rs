//! Free local ports for servers. They are below the range from which the kernel takes the ports of outgoing connections: no client takes
//! the port of a server between the choice and the start, or while the server is down.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A port that is free now. Processes begin at random places, so two of them hardly choose the same.
pub(crate) fn free() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(RandomState::new().hash_one(()) as u16));
    let mut ports = std::iter::repeat_with(|| FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
