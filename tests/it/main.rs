//! The parts of dorc against the world they act on.

mod unit;
//! Tests that touch the world: processes, sockets, files.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod demo_backend;
mod embedded;
//! The integration tests: one binary, one module for each part.

mod config;
mod health;
//! Tests that touch the world: one binary, one module a part.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers, too")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says why")]

mod intake;
mod releases;
//! The integration tests, as one program.

mod tcp;
