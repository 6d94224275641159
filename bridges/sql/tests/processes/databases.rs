//! Databases of one PostgreSQL server, for processes that share one of them.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker_conformance::postgres::{PASSWORD, Server};
use eventbroker_conformance::processes::{Fault, Place, Site};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

/// The server, started on first use; members do not start it.
static SERVER: OnceLock<Server> = OnceLock::new();

/// Creates databases on the server.
pub(crate) struct Databases;

/// The address of a database.
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

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Crash, Fault::Disconnect, Fault::Freeze]
    }

    fn suffer(&self, fault: Fault, lasts: Duration) {
        let server = SERVER.get().expect("it runs");
        match fault {
            Fault::Crash => {
                server.crash();
                thread::sleep(lasts);
                server.up();
            }
            Fault::Freeze => {
                server.freeze(true);
                thread::sleep(lasts);
                server.freeze(false);
            }
            Fault::Disconnect => {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
                let mut client = Client::connect(&self.0, NoTls).expect("it connects");
                let cut: i64 = client.query_one(cut, &[]).expect("a count").get(0);
                assert!(cut >= 1, "nobody was connected");
            }
        }
    }

    fn port(&self) -> Option<u16> {
        SERVER.get().map(Server::port)
    }

    fn address_by(&self, port: u16) -> String {
        let server = SERVER.get().expect("it runs");
        server.tcp(&self.0, PASSWORD).replace(&format!(":{}/", server.port()), &format!(":{port}/"))
    }

    fn deliveries(&self) -> Vec<String> {
        let mut client = Client::connect(&self.0, NoTls).expect("it connects");
        let query =
            "SELECT concat_ws(' ', position, claims, holder, token, state) FROM events_deliveries ORDER BY position";
        client.query(query, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
    }
}
