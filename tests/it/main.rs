//! The tests of the broker that share one process: a module for each behaviour, lowest layer first.
//!
//! They run in parallel, with many more threads than cores, because most of them wait. A test that needs a process of
//! its own (signals, the global broker, a global subscriber, counted threads or memory) is a file of its own beside
//! this folder.

mod support;

mod config_defaults;
mod event;
mod pattern;

mod handler;
mod pool;
mod publish;
mod queue;
mod retry;
mod subscription;

mod dead_letter;
mod store;

mod stop;
mod telemetry;

mod hooks;
mod provider;

mod dependency_tree;
mod rooms;
