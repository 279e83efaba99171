//! Where the control groups that systemd names are in the file system.

use std::path::{Path, PathBuf};

/// Where the cgroup2 file system is mounted: alone, or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The folder of a control group as systemd names it; `None`: it names none, or it is not there.
pub(super) fn folder(group: &str) -> Option<PathBuf> {
    // The root holds the processes of everybody.
    let group = group.strip_prefix('/').filter(|group| !group.is_empty())?;
    // Every folder of cgroup2 has this file, and none of the older ones.
    let mount = MOUNTS.into_iter().map(Path::new).find(|mount| mount.join("cgroup.controllers").exists())?;
    Some(mount.join(group)).filter(|folder| folder.is_dir())
}
