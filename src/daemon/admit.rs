//! Who gets through to the control socket: its owner, the group dorc, and by an access control list the deployers of apps.
//! What they may do there the server decides.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

/// The attribute that the kernel takes an access control list from (`linux/posix_acl_xattr.h`).
const ATTRIBUTE: &str = "system.posix_acl_access";
/// The version of its layout.
const VERSION: u32 = 2;
/// To read and to write: what it takes to connect.
const READ_WRITE: u16 = 6;
/// In place of a number, where an entry needs none.
const NOBODY: u32 = u32::MAX;

/// Lets these users connect, besides the owner and the group.
pub(super) fn admit(socket: &Path, users: &BTreeSet<u32>) -> io::Result<()> {
    Ok(setxattr(socket, ATTRIBUTE, &access_list(users), XattrFlags::empty())?)
}

/// `{ version: u32, [{ tag: u16, permissions: u16, number: u32 }] }`, in the order of the tags.
fn access_list(users: &BTreeSet<u32>) -> Vec<u8> {
    let (owner, user, group, mask, others) = (0x01, 0x02, 0x04, 0x10, 0x20);
    let named = users.iter().map(|uid| (user, READ_WRITE, *uid));
    let entries = std::iter::once((owner, READ_WRITE, NOBODY)).chain(named).chain([
        (group, READ_WRITE, NOBODY),
        (mask, READ_WRITE, NOBODY),
        (others, 0, NOBODY),
    ]);
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, number) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(permissions));
        list.extend(u32::to_le_bytes(number));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for users in [vec![], vec![1000], vec![3, 1000, 65534]] {
            match admit(&socket, &users.into_iter().collect()) {
                // A file system without such lists.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
                result => result.unwrap(),
            }
        }
    }
}
