//! Tests that touch the world: one binary, one module a part.

mod intake;
mod releases;
