//! One member logs a loss, once, as an error.

use std::time::Duration;

use eventbroker::SubscribeOptions;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

use crate::support::{PATIENCE, ask, client, event, listen, start, wait_until};
use eventbroker_conformance::traces::Traces;

#[test]
fn a_loss_is_logged_once() {
    let _process = crate::process();
    let traces = Traces::of_process();
    let server = Server::start();
    let mut client = client(&server.url());
    let lease = Duration::from_millis(400);
    let redis = Redis::new(server.url()).stream_name("stream").lease_time(lease).max_len(0);
    let members = [start(&redis), start(&redis)];
    let calls = members.each_ref().map(|broker| {
        let options = SubscribeOptions::new("a.*").name("all").queue_capacity(1).concurrency(1);
        listen(broker, options)
    });
    let id = members[0].publish(event("a.b")).expect("it is accepted").id;
    wait_until("it is handled", || calls.iter().any(|calls| calls.try_iter().any(|came| came == id)));
    // No member has read these entries when they are trimmed.
    let mut script = redis::cmd("EVAL");
    script
        .arg("for _ = 1, 5 do redis.call('XADD', KEYS[1], '*', 'x', '') end redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)");
    script.arg(1).arg("stream").query::<()>(&mut client).expect("an answer");
    wait_until("the loss is reported", || traces.text().contains("data loss"));
    // Both members check for losses every quarter of a lease: 12 checks each.
    std::thread::sleep(3 * lease);
    let text = traces.text();
    assert_eq!(text.matches("data loss").count(), 1, "{text}");
    assert!(text.contains("at_least=5"), "{text}");
    let stats = members[1].back_end_stats().expect("it answers");
    assert_eq!((stats.entries_lost, stats.losses_unknown), (5, 0));
    ask::<()>(&mut client, &["FLUSHALL"]);
    wait_until("the loss is reported", || text_after(&traces, &text).contains("data loss"));
    assert_eq!(members[1].back_end_stats().expect("it answers").losses_unknown, 1);
    for broker in members {
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

fn text_after(traces: &Traces, before: &str) -> String {
    traces.text()[before.len()..].to_owned()
}
