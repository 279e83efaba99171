//! Tests that touch the world: one binary, one module a part.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers, too")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says why")]

#[path = "../support/fakes.rs"]
mod fakes;

mod cli;
mod config;
mod demo;
mod demo_backend;
mod embedded;
mod engine;
mod health;
mod intake;
mod ports;
mod properties;
mod receive;
mod register;
mod releases;
mod sock_diag;
mod tcp;
mod unit;
