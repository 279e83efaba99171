//! The users and groups of this host, as its own files have them.

use std::fs;

/// The number of a user, who may be named by it.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| user_id_in(&read("/etc/passwd"), name))
}

/// The number of a user in the lines of a `passwd` file.
#[must_use]
pub fn user_id_in(passwd: &str, name: &str) -> Option<u32> {
    id_in(passwd, name)
}

/// The name of a user, or the number where it has none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let passwd = read("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// The number of a group.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    id_in(&read("/etc/group"), name)
}

/// Whether the file of groups names that user as one of the group's.
#[must_use]
pub fn is_member(user: &str, group: &str) -> bool {
    read("/etc/group").lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() == Some(group)
            && fields.nth(2).is_some_and(|users| users.split(',').any(|one| one == user))
    })
}

/// The third field of the line that begins with that name: the number, in both files.
fn id_in(lines: &str, name: &str) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|field| *field == name).and_then(|_| fields.nth(1)?.parse().ok())
    })
}

fn read(path: &str) -> String {
    // A host without it has no users that anybody could name.
    fs::read_to_string(path).unwrap_or_default()
}
