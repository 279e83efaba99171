//! App files: the right ones mean what they should, the wrong ones say what is wrong.

#![expect(clippy::unwrap_used, reason = "what a test can't do without fails it")]

mod app;
mod docs;
mod fixtures;
mod host;
mod render;
