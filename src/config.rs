//! From an app file as it is written to a valid [`App`](crate::model::app::App), or its problems.

pub mod file;
pub mod seed;
