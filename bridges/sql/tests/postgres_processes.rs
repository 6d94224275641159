//! Processes that share a PostgreSQL database and die (the cases of every provider), and a server that dies.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::processes::{Place, Site, run};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Databases;

struct Database(String);

impl Site for Databases {
    fn fresh(&self) -> Box<dyn Place> {
        Box::new(Database(SERVER.get_or_init(Server::start).database()))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        Postgres::new(address).lease_time(lease).open().expect("it opens")
    }
}

impl Place for Database {
    fn address(&self) -> &str {
        &self.0
    }

    /// The server crashes, or its connections are cut.
    fn disturb(&self, round: usize) -> Option<&'static str> {
        let server = SERVER.get().expect("it runs");
        if round.is_multiple_of(2) {
            server.crash();
            thread::sleep(Duration::from_millis(300));
            server.up();
            return Some("crashed");
        }
        let cut =
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
        let mut client = Client::connect(&self.0, NoTls).expect("it connects");
        let cut: i64 = client.query_one(cut, &[]).expect("a count").get(0);
        assert!(cut >= 1, "nobody was connected");
        Some("cut")
    }

    fn deliveries(&self) -> Vec<String> {
        let mut client = Client::connect(&self.0, NoTls).expect("it connects");
        let query =
            "SELECT concat_ws(' ', position, claims, holder, token, state) FROM events_deliveries ORDER BY position";
        client.query(query, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
    }
}

fn main() {
    run(&Databases, &[]);
}
