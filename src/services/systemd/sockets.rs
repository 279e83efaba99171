//! The ports that processes listen on, from `/proc`.

use std::collections::BTreeSet;
use std::fs;

/// How `/proc/net/tcp` writes the state of a listening socket.
const LISTEN: &str = "0A";

/// The TCP ports on which these processes listen, in order.
pub(super) fn listening_ports(pids: &[u32]) -> Vec<u16> {
    let inodes: BTreeSet<u64> = pids.iter().flat_map(|pid| socket_inodes(*pid)).collect();
    // Usually all of them share one network namespace, be it the host's or, by a drop-in, their own. Any of them may be gone.
    let table = |pid: &u32, name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok();
    let ports: BTreeSet<u16> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|name| pids.iter().find_map(|pid| table(pid, name)))
        .flat_map(|table| {
            table.lines().skip(1).filter_map(|line| listener(line, &inodes)).collect::<Vec<_>>()
        })
        .collect();
    ports.into_iter().collect()
}

fn socket_inodes(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The port in a line of `/proc/net/tcp`, if it is a listener's and one of these.
fn listener(line: &str, inodes: &BTreeSet<u64>) -> Option<u16> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    if state != LISTEN || !inodes.contains(&inode) {
        return None;
    }
    u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
}

/// Whether the process handles SIGHUP itself; otherwise it would die of it or never see it.
pub(super) fn handles_sighup(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (libc::SIGHUP - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_their_inode() {
        let line = "   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1";
        assert_eq!(listener(line, &BTreeSet::from([4711])), Some(8081));
        assert_eq!(listener(line, &BTreeSet::from([1])), None);
        assert_eq!(listener(&line.replace("0A", "01"), &BTreeSet::from([4711])), None);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports(&[std::process::id()]).contains(&port));
    }
}
