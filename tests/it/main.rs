//! Tests that touch the world: processes, sockets, files.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod demo_backend;
mod embedded;
mod health;
