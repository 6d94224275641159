//! A declared struct: its setters, the check of its bounds, and its keys.

use std::path::PathBuf;
use std::time::Duration;

use eventbroker_bridge_kit::settings;
use eventbroker_bridge_kit::settings::{Measure, Secret, Settings, Status, Url};

settings! {
    /// Settings that are their own builder.
    pub struct Example {
        /// The address.
        url(no_setter): Url = "example://localhost", 1 ..= 4_096 bytes, secret;
        /// The stream.
        ///
        /// Every other name begins with it.
        stream_name(into): String = "events", 1 ..= 200 bytes;
        /// The lease of a delivery.
        lease_time: Duration = 30 s, 100 ms ..= 7 days;
        /// The number of partitions.
        partitions: u32 = 0, 0 ..= 64;
        /// A token to log in with.
        token(into): Secret, secret;
        /// A file of certificates.
        ca_file(optional): PathBuf, 1 ..= 4_096 bytes;
        /// The statuses.
        status(word): Status = "failures";
    }
}

settings! {
    /// Settings that two builders share.
    pub struct Shared {
        /// The table.
        table_name(into): String = "events";
    }
    setters on One => shared;
    setters on Two => shared;
}

/// A builder with shared settings.
#[derive(Debug, Default)]
#[must_use]
pub struct One {
    shared: Shared,
}

/// A builder with shared settings.
#[derive(Debug, Default)]
#[must_use]
pub struct Two {
    shared: Shared,
}

#[test]
fn a_setter_sets_its_field_and_the_rest_keep_their_defaults() {
    let path = PathBuf::from("ca.pem");
    let example = Example::default().stream_name("shop").token("hunter2").ca_file("ca.pem").status(Status::Full);
    assert_eq!((example.stream_name.as_str(), example.token.expose()), ("shop", "hunter2"));
    assert_eq!((example.ca_file, example.status), (Some(path), Status::Full));
    assert_eq!((example.lease_time, example.partitions), (Duration::from_secs(30), 0));
    assert_eq!(example.url, Url::new("example://localhost"));
    assert_eq!(Example::default().status, Status::Failures);
}

#[test]
fn several_builders_have_the_setters_of_a_part() {
    assert_eq!(One::default().table_name("one").shared.table_name, "one");
    assert_eq!(Two::default().table_name("two").shared.table_name, "two");
    assert_eq!(Shared::default().table_name, "events");
}

#[test]
fn a_value_out_of_its_bounds_is_an_error_with_the_name_and_the_bound() {
    let example = Example::default;
    let cases = [
        (example().lease_time(Duration::from_millis(99)), "lease_time: is 99ms, at least 100ms is required"),
        (example().lease_time(Duration::from_secs(604_801)), "lease_time: is 604801s, at most 604800s is allowed"),
        (example().partitions(65), "partitions: is 65, at most 64 is allowed"),
        (example().stream_name(""), "stream_name: is 0 bytes long, 1 to 200 are allowed"),
        (example().ca_file(""), "ca_file: is 0 bytes long, 1 to 4096 are allowed"),
    ];
    for (example, problem) in cases {
        assert_eq!(example.check_bounds(), Err(problem.to_owned()));
    }
    assert_eq!(example().check_bounds(), Ok(()));
}

#[test]
fn each_setting_has_a_key_with_its_meaning_bounds_and_field() {
    let keys = Example::keys();
    let paths: Vec<_> = keys.iter().map(|key| &*key.path).collect();
    assert_eq!(paths, ["url", "stream_name", "lease_time", "partitions", "token", "ca_file", "status"]);
    assert_eq!(keys[1].meaning, "The stream");
    assert_eq!(keys[1].bounds, Some((Measure::Bytes(1), Measure::Bytes(200))));
    assert_eq!(keys.iter().filter(|key| key.secret).count(), 2);
    let mut example = Example::default();
    assert!(keys[2].field(&mut example).read("1m") && !keys[2].field(&mut example).read("soon"));
    assert_eq!(example.lease_time, Duration::from_secs(60));
    assert_eq!(keys[2].expected(&mut example), "a duration with its unit (250ms, 1s, 1h30m), 100ms to 168h");
    let mut pair = (example, ());
    let inside: Vec<_> =
        Example::keys().into_iter().map(|key| key.inside("part", |it: &mut (Example, ())| &mut it.0)).collect();
    assert_eq!((inside[2].path.as_str(), inside[2].field(&mut pair).show()), ("part.lease_time", "1m".to_owned()));
}

#[test]
fn secrets_are_hidden() {
    let mut example = Example::default().token("hunter2");
    assert!(!format!("{example:?}").contains("hunter2"), "{example:?}");
    assert_eq!(Example::keys()[4].field(&mut example).show(), "***");
}
