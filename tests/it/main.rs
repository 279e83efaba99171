//! The integration tests, as one program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to fail there")]

mod tcp;
