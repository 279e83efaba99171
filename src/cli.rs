//! The command line: one verb a file, and the only place that prints.

pub mod demo_backend;
