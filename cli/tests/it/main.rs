//! Runs the built command as a user does.

mod bench;
mod config;
mod demo;
mod front_door;
mod operator;
mod pipe_bad_lines;
mod pipe_closed_output;
mod pipe_complete;
mod pipe_exec;
mod pipe_round_trip;
mod pipe_signals;
mod support;
