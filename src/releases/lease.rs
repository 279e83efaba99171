//! Asks the kernel whether a file is open for writing.
//!
//! A read lease is granted only while nobody has the file open for writing (or mapped writable), so asking for
//! one and giving it back at once is the question.
#![allow(unsafe_code, reason = "no safe crate of ours wraps F_SETLEASE")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `F_SETSIG`, which libc does not name for every target; it is 10 on all that Rust has a std for.
const F_SETSIG: libc::c_int = 10;

/// Whether a file is open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// Nobody has it open for writing.
    None,
    /// Somebody has.
    Some,
    /// The file system has no leases, or we may not ask.
    Unknown,
}

/// Whether somebody has the file of `fd`, which is open for reading only, open for writing.
pub(super) fn writers(fd: BorrowedFd<'_>) -> Writers {
    match acquire(fd) {
        Ok(()) => {
            release(fd);
            Writers::None
        }
        Err(Errno::AGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

fn acquire(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // A writer that comes while the lease is held makes the kernel signal us, by default with SIGIO, which
    // would end the process. SIGURG is ignored by default.
    fcntl(fd, F_SETSIG, libc::SIGURG)?;
    fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)
}

fn release(fd: BorrowedFd<'_>) {
    // Closing the descriptor gives the lease back as well, so there is nothing to do about a failure.
    let _ = fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
}

fn fcntl(fd: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> Result<(), Errno> {
    // SAFETY: both commands that are passed here take one integer by value and touch no memory of ours; the
    // descriptor is open for as long as it is borrowed.
    match unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) } {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(writers(reader.as_fd()), Writers::Some);
        drop(writer);
        assert_eq!(writers(reader.as_fd()), Writers::None);
    }

    #[test]
    fn a_writer_that_comes_meanwhile_does_not_kill_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        acquire(reader.as_fd()).unwrap();
        let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(writer.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        release(reader.as_fd());
        OpenOptions::new().write(true).open(&path).unwrap();
    }
}
