//! The kernel plane: its place; not built yet.

pub mod sock_diag;
