//! The users of a host.

use std::fs;
use std::path::Path;

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
    let elsewhere = || if root == Path::new("/") { accounts::user_id_elsewhere(name) } else { None };
    accounts::user_id_in(&file, name).or_else(elsewhere).map(|uid| User { uid })
}
