//! The guide: a chapter for each task, to be read in this order, and the pages of `docs`, one for each question.
//!
//! All code in it is compiled and run by the tests.
//!
//! # Chapters
//! 1. [First steps](first_steps)
//! 2. [Events and metadata](events)
//! 3. [Patterns](patterns)
//! 4. [Handlers](handlers)
//! 5. [Publishing and receipts](publishing)
//! 6. [Overflow and backpressure](overflow)
//! 7. [Order and keys](order)
//! 8. [Retries and dead letters](retries)
//! 9. [Status and the store](status)
//! 10. [Mode sync](mode_sync)
//! 11. [Streams](streams)
//! 12. [Configuration and the global broker](configuration)
//! 13. [Hooks](hooks)
//! 14. [Stopping](stopping)
//! 15. [Providers and groups](providers)
//! 16. [Going to production](production)
//!
//! # Pages
//! | question | page |
//! |---|---|
//! | Which call do I need? | [`calls`] |
//! | What is promised, and what is not? | [`guarantees`] |
//! | What was shown, and by which test? | [`proofs`] |
//! | What happens when a queue is full, a handler fails, a process dies? | [`what_happens_when`] |
//! | Which back end, and what can each do? | [`back_ends`] |
//! | What is kept in Redis, and which rights does it need? | [`redis`] |
//! | What is kept in NATS, and which rights does it need? | [`nats`] |
//! | How is a broker configured from a file? | [`configuration_file`] |
//! | What does the command line offer? | [`command_line`] |
//! | What does the demo show? | [`demo`] |
//! | How is a broker monitored? | [`metrics`] |
//! | How fast is it? | [`performance`] |
//! | Is there an example of …? | [`examples`] |
//!
//! # In the source tree
//! | question | file |
//! |---|---|
//! | How is the code laid out? | `ARCHITECTURE.md` |
//! | Why is it built this way? | `docs/decisions`, one page each |
//! | What changed? | `CHANGELOG.md` |

macro_rules! chapters {
    ($($name:ident)*) => {
        $(
            #[doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
            pub mod $name {}
        )*
    };
}

chapters! {
    first_steps events patterns handlers publishing overflow order retries status mode_sync streams configuration hooks stopping
    providers production
}

/// The links of the pages lead to files of `docs`. The first definition of a label counts, so those of `links.md` lead to these modules.
macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {
        $(
            #[doc = include_str!("guide/links.md")]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $name {}
        )*
    };
}

pages! {
    back_ends: "back-ends.md",
    calls: "calls.md",
    command_line: "command-line.md",
    configuration_file: "configuration.md",
    demo: "demo.md",
    examples: "examples.md",
    guarantees: "guarantees.md",
    metrics: "metrics.md",
    nats: "nats.md",
    performance: "performance.md",
    proofs: "proofs.md",
    redis: "redis.md",
    what_happens_when: "what-happens-when.md",
}
