//! Processes that share a PostgreSQL database and die (the cases of every provider), and a server that dies.

#[path = "support/databases.rs"]
mod databases;

use eventbroker_conformance::processes::run;

fn main() {
    run(&databases::Databases, &[]);
}
