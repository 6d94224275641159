//! `${NAME}`, `${NAME:-default}` and `${NAME:?message}` are expanded, quoted or not. An unset name without a default is
//! an error.

use eventbroker_providers::Loader;

fn host(text: &str) -> Result<String, String> {
    let variables = [("SET", "value"), ("EMPTY", ""), ("NUMBER", "7")].map(|it| (it.0.to_owned(), it.1.to_owned()));
    let loader =
        Loader::new().yaml("c.yaml", format!("event_broker: {{ redis: {{ host: {text} }} }}")).environment(variables);
    loader.load().map(|loaded| loaded.config.redis_server.host).map_err(|error| error.to_string())
}

#[test]
fn set_names_are_replaced() {
    for (text, expected) in [
        ("'${SET}'", "value"),
        ("\"${SET}\"", "value"),
        ("'a-${SET}-${NUMBER}-b'", "a-value-7-b"),
        ("'${UNSET:-other}'", "other"),
        ("'${EMPTY:-other}'", "other"),
        ("'${SET:-other}'", "value"),
        ("'${UNSET:-${SET}}'", "value"),
        ("'x${UNSET:-}'", "x"),
        ("'${SET:?needed}'", "value"),
        ("'cost$5$'", "cost$5$"),
        ("'$${SET}'", "${SET}"),
    ] {
        assert_eq!(host(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn plain_scalars_are_expanded_before_their_type_is_looked_at() {
    let variables = [("N".to_owned(), "7".to_owned())];
    let text = "event_broker:\n  worker_count: ${N}\n  buffer_size: ${M:-42}\n  sync_timeout: ${N}s\n";
    let config = Loader::new().yaml("c.yaml", text).environment(variables).load().expect("accepted").config;
    assert_eq!(
        (config.broker.worker_count, config.broker.buffer_size, config.broker.sync_timeout.as_secs()),
        (7, 42, 7)
    );
}

#[test]
fn what_cannot_be_expanded_is_an_error_with_its_place() {
    for (text, expected) in [
        ("'${UNSET}'", "the variable UNSET is not set"),
        ("'${UNSET:?ask the operator}'", "${UNSET}: ask the operator"),
        ("'${EMPTY:?ask the operator}'", "${EMPTY}: ask the operator"),
        ("'${SET'", "a ${ is not closed by }"),
        ("'${}'", "names no variable"),
        ("'${SET-x}'", "${NAME:-default} or ${NAME:?message} is expected"),
    ] {
        let error = host(text).expect_err("refused");
        assert!(
            error.contains(expected) && error.starts_with("c.yaml:1:32: event_broker.redis.host: "),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_name_of_the_host_is_known_even_where_it_is_not_exported() {
    let loaded = Loader::new().yaml("c.yaml", "event_broker: { instance_id: '${HOSTNAME}' }").environment([]).load();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux knows its name");
    assert_eq!(loaded.expect("accepted").config.broker.instance_id.as_deref(), Some(name.trim()));
}
