//! The guide: a chapter for each thing that a user of the broker does, to be read in this order. All code in it is compiled and
//! run by the tests.
//!
//! 1. [First steps](first_steps)
//! 2. [Events and metadata](events)
//! 3. [Patterns](patterns)
//! 4. [Publishing and receipts](publishing)
//! 5. [Overflow and backpressure](overflow)
//! 6. [Order and keys](order)
//! 7. [Retries and dead letters](retries)
//! 8. [Status and the store](status)
//! 9. [Mode sync](mode_sync)
//! 10. [Streams](streams)
//! 11. [Configuration and the global broker](configuration)
//! 12. [Hooks](hooks)
//! 13. [Stopping](stopping)
//! 14. [Providers and guarantees](providers)
//! 15. [Going to production](production)

macro_rules! chapters {
    ($($name:ident)*) => {
        $(
            #[doc = include_str!(concat!("guide/", stringify!($name), ".md"))]
            pub mod $name {}
        )*
    };
}

chapters! {
    first_steps events patterns publishing overflow order retries status mode_sync streams configuration hooks stopping providers
    production
}
