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

/// The error of a provider whose connections meet servers of these versions in turn, the last one from then on.
fn error_with(versions: &'static [&'static str]) -> (u16, OpenError) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let last = versions.iter().skip(versions.len() - 1).cycle();
        for (stream, version) in listener.incoming().flatten().zip(versions.iter().chain(last)) {
            // A client that has left ends the connection.
            thread::spawn(move || serve(stream, version));
        }
    });
    (port, Nats::new(format!("nats://127.0.0.1:{port}")).open().expect_err("a server is too old"))
}

fn is_refusal(port: u16, error: &OpenError) -> bool {
    let problem = format!("NATS at 127.0.0.1:{port}: nats-server 2.10.29 is too old, 2.11 or later is required");
    matches!(error, OpenError::Server(text) if *text == problem)
}

#[test]
fn an_older_server_is_refused_with_its_version() {
    let (port, error) = error_with(&["2.10.29"]);
    assert!(is_refusal(port, &error), "{error:?}");
}

/// Two servers behind one address, or in one cluster, need not have one version.
#[test]
fn an_older_server_of_either_connection_is_refused() {
    for versions in [&["2.10.29", "2.15.1"], &["2.15.1", "2.10.29"]] {
        let (port, error) = error_with(versions);
        assert!(is_refusal(port, &error), "{versions:?}: {error:?}");
    }
}
