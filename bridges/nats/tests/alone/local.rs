//! While the server is stopped, what needs no server goes on as before: the memory is bounded, the bridge's threads cost nearly nothing, and
//! all is well soon after it is back. `DOWN=60` has it away for so many seconds.

use eventbroker::{Broker, Confirm};
use eventbroker_conformance::faults;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

#[test]
fn what_is_local_goes_on_while_the_server_is_stopped() {
    let _process = crate::process();
    let server = Server::start();
    let provider = Nats::new(server.url()).open().expect("it opens");
    let broker = Broker::builder().confirm(Confirm::Buffered).provider(provider).start().expect("it starts");
    faults::stopped(&broker, || server.crash(), || server.up());
}
