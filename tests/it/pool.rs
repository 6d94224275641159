//! Workers: how many calls run at once, growth and shrinking of the pool, stuck handlers.

mod concurrency_limit;
mod growth;
mod idle_workers;
mod stuck_handlers;
