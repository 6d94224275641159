//! While the server is unreachable, the bridge reconnects at a bounded rate and uses almost no processor time.

use eventbroker::Broker;
use eventbroker_conformance::faults;
use eventbroker_conformance::postgres::{PASSWORD, Server};
use eventbroker_conformance::proxy::Proxy;
use eventbroker_sql::Postgres;

#[test]
fn while_the_server_is_away_attempts_to_connect_are_rare_and_retries_wait() {
    let _process = crate::process();
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let url = server.tcp(&server.database(), PASSWORD);
    let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let provider = Postgres::new(url).open().expect("it opens");
    let broker = Broker::builder().provider(provider).start().expect("it starts");
    faults::away(&broker, &proxy);
}
