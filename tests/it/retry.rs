//! Retries: delays, attempts, and the bound on deliveries that wait.

mod max_waiting;
mod timing;
