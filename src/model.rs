//! The words of dorc as types, and its one decision: pure, without input, output, clock or runtime.

pub mod app;
pub mod colour;
pub mod deployment;
pub mod health;
pub mod hooks;
pub mod proxy_protocol;
pub mod release;
pub mod share;
