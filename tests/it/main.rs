//! The parts of dorc against the world they act on.

mod unit;
