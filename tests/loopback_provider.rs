//! x
use eventbroker_conformance::conformance_tests;
use eventbroker_conformance::loopback::Loopback;
mod conformance {
    use super::*;
    conformance_tests!(Loopback::new);
}
