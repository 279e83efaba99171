//! The kernel plane: its place; not built yet.
