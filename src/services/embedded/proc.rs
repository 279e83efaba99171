//! What /proc tells of a service's processes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;

/// All processes that descend from `root`, without it.
pub(super) fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, parentheses too.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether the process has a handler for SIGHUP, which would end it otherwise.
pub(super) fn handles_sighup(pid: u32) -> bool {
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    caught().is_some_and(|mask| mask & 1 == 1)
}

/// The TCP ports that these processes listen on, in order.
pub(super) fn listening_ports(pids: &[u32]) -> Vec<u16> {
    let sockets: HashSet<String> = pids.iter().flat_map(|pid| socket_inodes(*pid)).collect();
    let mut ports = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        ports.extend(text.lines().skip(1).filter_map(|line| listener(line, &sockets)));
    }
    ports.into_iter().collect()
}

fn socket_inodes(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    entries.filter_map(inode).collect()
}

/// The local port of one line of the table, where it is a listener (state 0A) of one of these sockets.
fn listener(line: &str, sockets: &HashSet<String>) -> Option<u16> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    if fields.get(3) != Some(&"0A") || !sockets.contains(*fields.get(9)?) {
        return None;
    }
    u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_listener_and_its_parent() {
        let me = std::process::id();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports(&[me]).contains(&port));
        drop(listener);
        assert!(!listening_ports(&[me]).contains(&port));
        assert!(descendants(std::os::unix::process::parent_id()).contains(&me));
    }
}
