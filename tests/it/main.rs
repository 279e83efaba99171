//! Tests that touch the world: processes, sockets, files.

mod embedded;
