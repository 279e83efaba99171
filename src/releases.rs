//! Releases: from an upload that is still being written to an immutable snapshot.

pub mod intake;
mod lease;
pub mod store;
pub mod watch;
