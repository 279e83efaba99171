//! Opens what lies beneath a folder and nothing else, however its owner moves things about meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// How many symlinks the path to a folder may have, as the kernel counts them.
const MAX_LINKS: usize = 40;

/// A folder that is open.
pub(super) struct Root {
    fd: OwnedFd,
    mount: u64,
}

impl Root {
    /// Opens the folder at `path`. A symlink on the way there is followed only if it belongs to root or to us:
    /// whoever uploads must not be able to have us read another folder.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = walk_to(path)?;
        let mount = mount_of(&fd)?;
        Ok(Self { fd, mount })
    }

    /// Opens what lies at `relative`, through no symlink and on no other file system (`EXDEV`).
    pub(super) fn open_at(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match fs::openat2(&self.fd, relative, flags, Mode::empty(), resolve) {
            // Older than Linux 5.6, or a filter that answers as if it were.
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_steps(relative, flags),
            other => other,
        }
    }

    /// Opens the folder at `relative`, for reading its names.
    pub(super) fn open_dir(&self, relative: &Path) -> Result<OwnedFd, Errno> {
        self.open_at(relative, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The same as `openat2` does, one component after the other.
    fn open_by_steps(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at = self.step(self.fd.as_fd(), Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
        let mut components = relative.components().filter(|c| *c != Component::CurDir).peekable();
        if components.peek().is_none() {
            return self.step(at.as_fd(), Path::new("."), flags);
        }
        while let Some(component) = components.next() {
            let Component::Normal(name) = component else { return Err(Errno::XDEV) };
            let last = components.peek().is_none();
            let step = if last { flags } else { OFlags::PATH | OFlags::DIRECTORY };
            at = self.step(at.as_fd(), Path::new(name), step)?;
        }
        Ok(at)
    }

    fn step(&self, at: BorrowedFd<'_>, name: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let fd = fs::openat(at, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if mount_of(&fd)? == self.mount { Ok(fd) } else { Err(Errno::XDEV) }
    }
}

/// What tells one mount from another, as `NO_XDEV` does. Not the device where that can be had: on an overlay, files and
/// folders of one mount have different ones.
fn mount_of(fd: &OwnedFd) -> Result<u64, Errno> {
    match fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) => {
            Ok(stat.stx_mnt_id)
        }
        // Older than Linux 5.8.
        _ => Ok(fs::fstat(fd)?.st_dev),
    }
}

/// Opens a folder by its path, component by component, following only trustworthy symlinks.
fn walk_to(path: &Path) -> io::Result<OwnedFd> {
    let path = std::path::absolute(path)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = fs::openat(CWD, "/", flags, Mode::empty())?;
    let mut ahead = names_reversed(&path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        let next = fs::openat(&at, &name, flags, Mode::empty())?;
        let stat = fs::fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
            let message = "the path leads through a symlink of an ordinary user, which is not followed";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let target = OsString::from_vec(fs::readlinkat(&next, "", Vec::new())?.into_bytes());
        if Path::new(&target).is_absolute() {
            at = fs::openat(CWD, "/", flags, Mode::empty())?;
        }
        ahead.extend(names_reversed(Path::new(&target)));
    }
    let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(&at, ".", read, Mode::empty())?)
}

fn names_reversed(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn both_ways_lead_beneath_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/a/b")).unwrap();
        std::fs::write(dir.path().join("in/a/b/c"), "").unwrap();
        symlink("a", dir.path().join("in/link")).unwrap();
        symlink("a/b/c", dir.path().join("in/file")).unwrap();
        let root = Root::open(&dir.path().join("in")).unwrap();
        let (flags, steps) = (OFlags::RDONLY, OFlags::RDONLY | OFlags::NONBLOCK);
        for path in [".", "a", "a/b/c"] {
            let path = Path::new(path);
            assert!(root.open_at(path, flags).is_ok() && root.open_by_steps(path, steps).is_ok(), "{path:?}");
        }
        for path in ["..", "a/../..", "link", "link/b/c", "file", "/etc/passwd", "nothing"] {
            let path = Path::new(path);
            assert!(
                root.open_at(path, flags).is_err() && root.open_by_steps(path, steps).is_err(),
                "{path:?}"
            );
        }
    }
}
