//! What `/proc` says about who started whom.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};

/// A process as it is known on this machine.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
}

/// All processes.
pub fn all() -> Vec<Process> {
    let folders = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    folders.filter_map(|folder| read(folder.file_name().to_str()?.parse().ok()?)).collect()
}

/// The processes that `ancestor` started, directly or not.
pub fn descendants(ancestor: u32) -> Vec<Process> {
    let all = all();
    let mut family = vec![ancestor];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        for child in all.iter().filter(|process| process.parent == parent) {
            family.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

/// Sends a signal to the group that this process leads; one that is gone already is no error.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone_already = kill_process_group(pid, signal);
    }
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold any character; after it come the state and the parent.
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let parent = stat[end + 1..].split_whitespace().nth(1)?.parse().ok()?;
    Some(Process { pid, parent, name: stat[start + 1..end].to_owned() })
}
