//! A Prometheus endpoint over plain HTTP, with the standard library only. The dashboard and the alert rules in
//! `docs/monitoring` query its series.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use eventbroker::metrics::Metrics;
use eventbroker::{Broker, Event, Source};

/// Answers one request with the metrics, whatever its path.
fn serve(broker: &Broker, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let text = broker.metrics().to_prometheus();
    write!(
        reader.into_inner(),
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        Metrics::PROMETHEUS_CONTENT_TYPE,
        text.len()
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    broker.subscribe("shop.orders.*", |_| ())?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let scraped = broker.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| serve(&scraped, stream)) {
                eprintln!("a scrape failed: {error}");
            }
        }
    });

    for number in 0..1_000 {
        let event = Event::builder(Source::System, "shop.orders.create").payload(&number).build()?;
        broker.publish(event)?;
    }

    // A scrape, as Prometheus makes one every few seconds.
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: shop\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let published = answer.lines().find(|line| line.starts_with("eventbroker_events_published_total"));
    println!("{}", published.ok_or("the series is missing")?);
    Ok(())
}
