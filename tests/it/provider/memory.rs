//! The conformance suite of providers, for the memory provider.

use eventbroker::provider::Provider;
use eventbroker_conformance::{Abilities, Subject, conformance_tests};

struct Memory;

impl Subject for Memory {
    fn abilities(&self) -> Abilities {
        Abilities {
            ordered: true,
            whole_order: true,
            free_members: true,
            exact: true,
            query: true,
            ..Abilities::default()
        }
    }

    fn provider(&self) -> Provider {
        Provider::memory()
    }
}

conformance_tests!(|| Memory);
