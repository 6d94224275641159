//! Without the feature `tls`, a `rediss://` address is rejected: the bridge does not fall back to plain TCP.
#![cfg(not(feature = "tls"))]

use eventbroker_redis::{OpenError, Redis};

#[test]
fn a_tls_address_is_refused_with_the_name_of_the_feature() {
    let error = Redis::new("rediss://u:s3cret@localhost").open().expect_err("it can't");
    assert!(matches!(&error, OpenError::Setting(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
