//! The sockets that a service listens on, as duplicates: found by its control group and port.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::sockopt::socket_cookie;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::sock_diag::{Listening, SockDiag};

/// Why a service's socket was not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    /// It is being started, or is about to end.
    #[error("the service does not listen on port {0}")]
    NotListening(u16),
    /// There is one, which none of its processes has.
    #[error("the service's socket can't be taken; is it one of multipath TCP?")]
    NotTaken,
    /// The kernel does not tell.
    #[error("the service's socket can't be looked for: {0}")]
    Error(io::Error),
}

impl NotFound {
    /// The control group goes with the last process in it.
    fn of(error: io::Error, port: u16) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::NotListening(port) } else { Self::Error(error) }
    }
}

/// The numbers by which the kernel knows a control group and those below it: sockets carry them.
pub(super) fn group_numbers(group: &Path) -> io::Result<Vec<u64>> {
    folders(group)?.iter().map(|folder| Ok(fs::metadata(folder)?.ino())).collect()
}

fn folders(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![group.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next) {
        let below = fs::read_dir(folder)?.filter_map(Result::ok);
        let below: Vec<_> = below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        folders.extend(below);
        next += 1;
    }
    Ok(folders)
}

fn processes(group: &Path) -> io::Result<Vec<Pid>> {
    let mut processes = Vec::new();
    for folder in folders(group)? {
        let text = fs::read_to_string(folder.join("cgroup.procs"))?;
        processes.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    }
    Ok(processes)
}

/// The sockets for clients that come by IPv4 and by IPv6.
///
/// They must be closed as soon as the kernel knows them: while this process has one open, clients that the
/// service no longer accepts would hang.
pub(super) fn find(group: &Path, port: u16) -> Result<[Option<OwnedFd>; 2], NotFound> {
    let wrong = |error| NotFound::of(error, port);
    let numbers = group_numbers(group).map_err(wrong)?;
    let mut rows = SockDiag::open().and_then(|mut diag| diag.listening(port)).map_err(wrong)?;
    rows.retain(|row| numbers.contains(&row.cgroup));
    let wanted = [false, true].map(|ipv6| best(&rows, ipv6).map(|row| row.cookie));
    if wanted == [None, None] {
        return Err(NotFound::NotListening(port));
    }
    let (mut found, mut denied) = ([None, None], None);
    for process in processes(group).map_err(wrong)? {
        // Of several processes that have the socket one that lets it be taken is enough.
        denied = take(group, process, &wanted, &mut found).err().or(denied);
        if (0..2).all(|place| found[place].is_some() == wanted[place].is_some()) {
            break;
        }
    }
    match denied {
        _ if found.iter().any(Option::is_some) => Ok(found),
        Some(error) => Err(wrong(error)),
        None => Err(NotFound::NotTaken),
    }
}

/// The one that the kernel itself would choose for a client on the loopback interface.
fn best(rows: &[Listening], ipv6: bool) -> Option<&Listening> {
    let rank = |row: &&Listening| match row.address.ip() {
        IpAddr::V4(ip) if !ipv6 && ip == Ipv4Addr::LOCALHOST => Some(3),
        IpAddr::V4(ip) if !ipv6 && ip.is_unspecified() => Some(2),
        IpAddr::V6(ip) if ipv6 && ip.is_loopback() => Some(3),
        IpAddr::V6(ip) if ip.is_unspecified() && (ipv6 || !row.only_v6) => Some(1),
        _ => None,
    };
    rows.iter().filter(|row| rank(row).is_some()).max_by_key(rank)
}

/// Looks for the wanted sockets among the descriptors of a process.
fn take(
    group: &Path,
    process: Pid,
    wanted: &[Option<u64>; 2],
    found: &mut [Option<OwnedFd>; 2],
) -> io::Result<()> {
    let handle = match pidfd_open(process, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        handle => handle?,
    };
    // It may have ended, and its number be somebody else's, before it was held.
    if !processes(group)?.contains(&process) {
        return Ok(());
    }
    for number in 0..table_size(process) {
        match pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) {
            Ok(descriptor) => keep_if_wanted(&descriptor, wanted, found)?,
            Err(Errno::BADF) => {}
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if (0..2).all(|place| found[place].is_some() || wanted[place].is_none()) {
            break;
        }
    }
    Ok(())
}

fn keep_if_wanted(
    descriptor: &OwnedFd,
    wanted: &[Option<u64>; 2],
    found: &mut [Option<OwnedFd>; 2],
) -> io::Result<()> {
    let Ok(cookie) = socket_cookie(descriptor) else { return Ok(()) };
    for (place, wanted) in found.iter_mut().zip(wanted) {
        if *wanted == Some(cookie) && place.is_none() {
            *place = Some(descriptor.try_clone()?);
        }
    }
    Ok(())
}

/// How many descriptors a process may have open now.
fn table_size(process: Pid) -> i32 {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap_or_default();
    let size = text.lines().find_map(|line| line.strip_prefix("FDSize:"));
    size.and_then(|size| size.trim().parse().ok()).unwrap_or(0)
}
