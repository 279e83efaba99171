//! The parts of dorc against the world they act on.

mod unit;
//! Tests that touch the world: processes, sockets, files.

mod embedded;
//! The integration tests: one binary, one module for each part.

mod config;
