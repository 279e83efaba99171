//! The parts of dorc against the world they act on.

mod unit;
//! Tests that touch the world: processes, sockets, files.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod demo_backend;
mod embedded;
//! The integration tests: one binary, one module for each part.

mod config;
mod health;
