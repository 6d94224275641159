//! The oldest supported server is nats-server 2.11: an older one is refused with its version.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use eventbroker_nats::{Nats, OpenError};

/// Answers as a server of this version does until a client has logged in.
fn serve(mut stream: TcpStream, version: &str) -> std::io::Result<()> {
    writeln!(
        stream,
        "INFO {{\"server_id\":\"old\",\"version\":\"{version}\",\"headers\":true,\"max_payload\":1048576}}\r"
    )?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line? == "PING" {
            stream.write_all(b"PONG\r\n")?;
        }
    }
    Ok(())
}

#[test]
fn an_older_server_is_refused_with_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that has left ends the connection.
            thread::spawn(move || serve(stream, "2.10.29"));
        }
    });
    let error = Nats::new(format!("nats://127.0.0.1:{port}")).open().expect_err("the server is too old");
    let problem = format!("NATS at 127.0.0.1:{port}: nats-server 2.10.29 is too old, 2.11 or later is required");
    assert!(matches!(&error, OpenError::Server(text) if *text == problem), "{error:?}");
}
