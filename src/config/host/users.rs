//! The users of a host.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::accounts;

/// What is to be known of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    /// The number that files carry.
    pub(super) uid: u32,
}

/// Looks a user up in the host's own file, and elsewhere (a directory service) only if it is not there.
pub(super) fn find(root: &Path, name: &str) -> Option<User> {
    let file = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    in_lines(&file, name).or_else(|| if root == Path::new("/") { ask_getent(name) } else { None })
}

fn ask_getent(name: &str) -> Option<User> {
    // A directory service may be away, so the question has an end.
    let output = Command::new("timeout")
        .args(["5", "getent", "passwd", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    in_lines(&String::from_utf8_lossy(&output.stdout), name)
}

fn in_lines(lines: &str, name: &str) -> Option<User> {
    accounts::user_id_in(lines, name).map(|uid| User { uid })
}
