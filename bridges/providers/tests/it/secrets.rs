//! Secrets appear neither in `Debug`, nor in `show`, nor in any error.

use eventbroker_providers::{Config, Loader};
use proptest::prelude::*;

const SECRET: &str = "hunter2";

fn load(
    text: &str,
    variables: &[(&str, &str)],
) -> Result<eventbroker_providers::Loaded, eventbroker_providers::ConfigError> {
    let variables = variables.iter().map(|it| (it.0.to_owned(), it.1.to_owned()));
    Loader::new().yaml("app.yaml", text).environment(variables).load()
}

#[test]
fn debug_and_show_hide_them() {
    let text = "event_broker:\n  redis: { password: hunter2 }\n  nats: { url: 'nats://me:hunter2@a:4222,nats://hunter2@b:4222' }\n  \
                database: { url: 'postgres://me:hunter2@db/events?password=hunter2', listen_url: 'postgres://me:hunter2@direct/events' }\n";
    let loaded = load(text, &[]).expect("accepted");
    assert_eq!(loaded.config.redis_server.password.expose(), SECRET);
    let debug = format!("{loaded:?} {:?}", loaded.config);
    let shown: String = loaded.entries().iter().map(|it| it.value.clone() + "\n").collect();
    assert!(!debug.contains(SECRET) && !shown.contains(SECRET), "{debug}\n{shown}");
    assert!(shown.contains("nats://***@a:4222,nats://***@b:4222\n"), "{shown}");
    assert!(shown.contains("postgres://***@db/events?***\n"), "{shown}");
    assert!(shown.contains("postgres://***@direct/events\n"), "{shown}");
}

#[test]
fn no_error_shows_them() {
    for text in [
        // An invalid value on the line of the secret.
        "event_broker: { redis: { password: hunter2, port: x } }",
        "event_broker: { redis: { port: x, password: hunter2 } }",
        "event_broker: { worker_count: x, redis: { password: \"hunter2\" } }",
        // A misspelt key.
        "event_broker:\n  redis:\n    pasword: hunter2\n",
        "event_broker:\n  redis:\n    pass: { a: hunter2 }\n",
        // A secret that is not a scalar, or a scalar in place of a section.
        "event_broker:\n  redis:\n    password: [hunter2, a]\n",
        "event_broker:\n  redis:\n    password: { hunter2: a }\n",
        "event_broker:\n  redis: hunter2\n",
        "event_broker: hunter2\n",
        // Invalid YAML, an unterminated variable, an unknown scheme.
        "event_broker:\n  redis:\n    password: \"hunter2\n",
        "event_broker:\n  redis:\n    password: [hunter2\n",
        "event_broker:\n  redis:\n    password: 'a'\n     hunter2: x\n",
        "event_broker:\n  redis:\n    password: ${hunter2\n",
        "event_broker:\n  database:\n    url: mysql://me:hunter2@db/x\n",
    ] {
        let error = load(text, &[]).expect_err("refused").to_string();
        assert!(!error.contains(SECRET), "{text}\n{error}");
    }
    let long = load(&format!("event_broker: {{ nats: {{ url: 'nats://me:hunter2@{}' }} }}", "a".repeat(5_000)), &[]);
    assert!(!long.expect_err("too long").to_string().contains(SECRET));
    let variable =
        load("event_broker: { provider: database }", &[("RESOLVESPEC_EVENT_BROKER_DATABASE_URL", "x:hunter2@y")]);
    assert!(!variable.expect_err("refused").to_string().contains(SECRET));
}

#[test]
fn no_error_of_serde_shows_them() {
    for text in [
        r#"{ "redis": { "password": ["hunter2"] } }"#,
        r#"{ "redis": { "pasword": "hunter2" } }"#,
        r#"{ "worker_count": -1, "redis": { "password": "hunter2" } }"#,
    ] {
        let error = serde_json::from_str::<Config>(text).expect_err("refused").to_string();
        assert!(!error.contains(SECRET), "{error}");
    }
}

proptest! {
    /// An error does not show the secret, wherever the file is cut off or junk is inserted.
    #[test]
    fn a_disturbed_file_shows_no_secret(at in 0_usize..100, junk in "[\\[\\]{}:,'\"*&!%@`|>\n\t -]{0,3}", cut in any::<bool>()) {
        let text = "event_broker:\n  worker_count: x\n  redis:\n    host: a\n    password: hunter2\n    port: 1\n  mode: y\n";
        let at = at.min(text.len());
        // Junk inside the key or the value would make another key or another secret.
        let name = text.find("password").expect("it is there");
        prop_assume!(!(name..name + "password: hunter2".len()).contains(&at));
        let rest = if cut { "" } else { &text[at..] };
        if let Err(error) = load(&format!("{}{junk}{rest}", &text[..at]), &[]) {
            prop_assert!(!error.to_string().contains(SECRET), "{}", error);
        }
    }
}
