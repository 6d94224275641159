//! While the server is stopped, local subscriptions keep their rate, the memory is bounded and the bridge's threads use
//! almost no processor time. The buffer is sent soon after a restart. `DOWN=60` sets the seconds of the outage.

use eventbroker::{Broker, Confirm};
use eventbroker_conformance::faults;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

#[test]
fn local_subscriptions_continue_while_the_server_is_stopped() {
    let _process = crate::process();
    let server = Server::start();
    let provider = Redis::new(server.url()).open().expect("it opens");
    let broker = Broker::builder().confirm(Confirm::Buffered).provider(provider).start().expect("it starts");
    faults::stopped(&broker, || server.crash(), || server.up());
}
