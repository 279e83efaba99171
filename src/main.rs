//! The `dorc` program: parse, dispatch, exit.

fn main() {}
