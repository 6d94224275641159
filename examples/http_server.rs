//! A synchronous HTTP server with a thread per connection. It publishes request bodies as events and shows their
//! status.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use eventbroker::{Broker, Event, EventId, PublishError, Source};

/// `POST /events` publishes its body as the payload, `GET /events/ID` shows the event. Returns the status and the body.
fn answer(broker: &Broker, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    match (method, path.strip_prefix("/events")) {
        ("POST", Some("")) => match Event::builder(Source::Frontend, "web.forms.submit").payload_json(body).build() {
            Ok(event) => match broker.publish(event) {
                Ok(accepted) => (202, accepted.id.to_string()),
                Err(PublishError::Full { .. }) => (429, "try again later".to_owned()),
                Err(error) => (503, error.to_string()),
            },
            Err(error) => (400, error.to_string()),
        },
        ("GET", Some(id)) => match EventId::parse(id.trim_start_matches('/')).map(|id| broker.get(&id)) {
            Ok(Ok(Some(event))) => (200, String::from_utf8_lossy(&event.to_json()).into_owned()),
            Ok(Ok(None)) => (404, "no such event".to_owned()),
            Ok(Err(error)) => (503, error.to_string()),
            Err(error) => (400, error.to_string()),
        },
        _ => (404, "no such page".to_owned()),
    }
}

/// Reads one request and writes the response. A real server uses a library for this.
fn serve(broker: &Broker, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, text) = answer(broker, method, path, &body);
    write!(
        reader.into_inner(),
        "HTTP/1.1 {status} .\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

fn request(address: std::net::SocketAddr, request: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    broker.subscribe("web.forms.*", |delivery| println!("handled {}", delivery.event().payload().as_str()))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let served = broker.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let broker = served.clone();
            std::thread::spawn(move || serve(&broker, stream));
        }
    });

    let (status, id) = request(address, "POST /events HTTP/1.1\r\nContent-Length: 13\r\n\r\n{\"name\":\"Ada\"}")?;
    println!("POST: {status} {id}");
    assert_eq!(status, "400", "the length is one short");
    let (status, id) = request(address, "POST /events HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"name\":\"Ada\"}")?;
    assert_eq!(status, "202");
    let (status, event) = request(address, &format!("GET /events/{id} HTTP/1.1\r\n\r\n"))?;
    println!("GET: {status} {event}");
    assert_eq!(status, "200");
    assert!(broker.stop(Duration::from_secs(5)).is_clean());
    Ok(())
}
