//! A TCP proxy between a bridge and its local server that injects faults: it cuts a connection instead of passing an
//! answer, accepts no connection, slows answers down, or drops all that a connection sends. Requests reach the server on
//! every other connection.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The proxy. Its connections are closed on drop.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wires: Arc<Wires>,
}

#[derive(Debug, Default)]
struct Wires {
    server: AtomicU16,
    closed: AtomicBool,
    is_down: AtomicBool,
    /// The number of answers still to cut.
    to_cut: AtomicU64,
    connects: AtomicU64,
    /// Limit of answer bytes per second and connection; 0 for none.
    rate: AtomicU64,
    /// The local ports, towards the server, of the connections that pass nothing any more.
    black_holes: Mutex<HashSet<u16>>,
    /// Both ends of every connection.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts a proxy to a local port.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let wires = Arc::new(Wires { server: AtomicU16::new(server), ..Wires::default() });
        let shared = Arc::clone(&wires);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                shared.connects.fetch_add(1, Ordering::SeqCst);
                if !shared.is_down.load(Ordering::SeqCst) {
                    shared.join(client);
                }
            }
        });
        Self { port, wires }
    }

    /// The local port of the proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far, including those closed while the proxy was down.
    pub fn connects(&self) -> u64 {
        self.wires.connects.load(Ordering::SeqCst)
    }

    /// Cuts all connections and closes new ones at once, or passes connections again.
    pub fn set_down(&self, is_down: bool) {
        self.wires.is_down.store(is_down, Ordering::SeqCst);
        if is_down {
            self.wires.cut_all();
        }
    }

    /// Sends new connections to another port. Existing connections stay.
    pub fn lead_to(&self, server: u16) {
        self.wires.server.store(server, Ordering::SeqCst);
    }

    /// Cuts the connection instead of passing an answer, for the next `count` answers of the server.
    pub fn cut_answers(&self, count: u64) {
        self.wires.to_cut.fetch_add(count, Ordering::SeqCst);
    }

    /// Limits answers to `rate` bytes per second and connection.
    pub fn slow_down(&self, rate: u64) {
        self.wires.rate.store(rate, Ordering::SeqCst);
    }

    /// Drops all bytes of one connection from now on, and keeps it open at both ends. `port` is the one that the server sees.
    pub fn black_hole(&self, port: u16) {
        self.wires.black_holes.lock().expect("no panic under the lock").insert(port);
    }

    /// Drops all bytes of the connections that are open now, and keeps them open at both ends. New ones are passed.
    pub fn black_hole_all(&self) {
        let open = self.wires.open.lock().expect("no panic under the lock");
        let ports = open.iter().filter_map(|end| end.local_addr().ok()).map(|address| address.port());
        self.wires.black_holes.lock().expect("no panic under the lock").extend(ports);
    }

    /// The number of answers still to cut.
    pub fn answers_to_cut(&self) -> u64 {
        self.wires.to_cut.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wires.closed.store(true, Ordering::SeqCst);
        self.wires.cut_all();
        // Wakes the accepting thread. It may have ended already.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Wires {
    fn join(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server.load(Ordering::SeqCst))) else { return };
        for end in [&client, &server] {
            end.set_nodelay(true).expect("a setting");
            self.open.lock().expect("no panic under the lock").push(end.try_clone().expect("a handle"));
        }
        let [to_server, to_client] = [&client, &server].map(|end| end.try_clone().expect("a handle"));
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pass(to_server, server, false));
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pass(to_client, client, true));
    }

    /// Copies bytes until one end closes; then closes both.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
        let port = if is_answer { &from } else { &to }.local_addr().expect("its address").port();
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if self.black_holes.lock().expect("no panic under the lock").contains(&port) {
                continue;
            }
            let less = |left: u64| left.checked_sub(1);
            let is_cut = is_answer && self.to_cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
            if is_cut || to.write_all(&buffer[..length]).is_err() {
                break;
            }
            let rate = self.rate.load(Ordering::SeqCst);
            if is_answer && rate > 0 {
                thread::sleep(Duration::from_secs(1).mul_f64(length as f64 / rate as f64));
            }
        }
        for end in [from, to] {
            // The end may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn cut_all(&self) {
        for end in self.open.lock().expect("no panic under the lock").drain(..) {
            // The end may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}
