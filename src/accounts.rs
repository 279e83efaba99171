//! The users and groups of this host: as its own files have them, and users elsewhere (a directory service) if not there.
//! All of it can take a while.

use std::fs;
use std::process::{Command, Stdio};

/// The number of a user, who may be named by it.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| user_id_in(&read("/etc/passwd"), name)).or_else(|| user_id_elsewhere(name))
}

/// The number of a user as all say who know users; a number stands for itself only if there is such a user.
#[must_use]
pub fn user_id_elsewhere(name: &str) -> Option<u32> {
    let lines = ask_getent(name);
    user_id_in(&lines, name).or_else(|| {
        let uid: u32 = name.parse().ok()?;
        user_name_in(&lines, uid).map(|_| uid)
    })
}

/// The number of a user in the lines of a `passwd` file.
#[must_use]
pub fn user_id_in(passwd: &str, name: &str) -> Option<u32> {
    id_in(passwd, name)
}

/// The name of a user, or the number where it has none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    user_name_in(&read("/etc/passwd"), uid)
        .or_else(|| user_name_in(&ask_getent(&uid.to_string()), uid))
        .unwrap_or_else(|| uid.to_string())
}

fn user_name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The line of a user, named or by number, from all who know users.
fn ask_getent(user: &str) -> String {
    // A directory service may be away, so the question has an end.
    let output = Command::new("timeout")
        .args(["5", "getent", "passwd", "--", user])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
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
