//! App files: the right ones mean what they should, the wrong ones say what is wrong.

mod app;
mod docs;
mod fixtures;
mod host;
mod render;
