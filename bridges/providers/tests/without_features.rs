//! A configuration that names a back end is rejected without the back end's feature. The error names the feature.
#![cfg(not(any(feature = "nats", feature = "redis", feature = "sqlite", feature = "postgres")))]

use eventbroker_providers::{Config, Loader, OpenError, open};

fn config(section: &str) -> Config {
    let loader = Loader::new().yaml("c.yaml", format!("event_broker: {{ {section} }}")).environment([]);
    loader.load().expect("accepted").config
}

#[test]
fn a_back_end_that_is_not_compiled_in_is_an_error_that_names_the_feature() {
    let missing = [
        ("provider: redis", "redis", "redis"),
        ("provider: nats", "nats", "nats"),
        ("provider: database, database: { url: 'sqlite:x.db' }", "database", "sqlite"),
        ("provider: database, database: { url: 'postgres://db/x' }", "database", "postgres"),
    ];
    for (section, provider, feature) in missing {
        let error = open(&config(section)).expect_err("it is not compiled in");
        assert_eq!(error, OpenError::NotCompiledIn { provider, feature });
        assert!(error.to_string().contains(&format!("{provider} is not compiled in")), "{error}");
        assert!(error.to_string().contains(&format!("feature `{feature}`")), "{error}");
    }
}
