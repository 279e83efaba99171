//! Releases: from an upload that is still being written to an immutable snapshot.

mod beneath;
mod copy;
mod digest;
pub mod inotify;
pub mod intake;
mod lease;
mod listing;
pub mod receive;
mod signed;
pub mod store;
pub mod upload;
mod watch;
mod whole;
mod working_dir;
