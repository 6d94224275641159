//! The memory provider passes the suite of all providers.

use eventbroker::{Broker, BrokerBuilder};
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

struct Memory;

impl Subject for Memory {
    fn abilities(&self) -> Abilities {
        Abilities { ordered: true, exact: true, query: true, ..Abilities::default() }
    }

    fn broker(&self, builder: BrokerBuilder) -> Broker {
        builder.start().expect("it starts")
    }
}

conformance_tests!(|| Memory);
