//! Without the feature `tls`, a server on another machine is refused unless the address says `sslmode=disable`.
#![cfg(all(feature = "postgres", not(feature = "tls")))]

use eventbroker_sql::Postgres;

#[test]
fn a_server_on_another_machine_is_refused_with_the_name_of_the_feature() {
    let error = Postgres::new("postgres://u:s3cret@db.example.com/x").open().expect_err("it is refused").to_string();
    assert!(error.contains("feature `tls`") && error.contains("sslmode=disable"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
