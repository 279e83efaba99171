//! Kernel pipes for `splice`: long transfers go through one without being copied into dorc and out again.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// How many empty pipes a thread keeps for the next transfer.
const KEPT: usize = 8;
/// What is asked for; a kernel that refuses leaves its default, which works as well, only slower.
const SIZE: usize = 512 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    inside: usize,
}

impl Pipe {
    /// An empty pipe of this thread's.
    ///
    /// # Errors
    /// No descriptors are left; the transfer has to go on by copying.
    pub(super) fn take() -> Result<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Without the right to a bigger one the default remains.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Self { read, write, inside: 0 })
    }

    /// Gives an empty pipe back; one with something left in it is closed.
    pub(super) fn give_back(self) {
        if self.inside == 0 {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < KEPT {
                    pool.push(self);
                }
            });
        }
    }

    /// Moves what `from` has into the empty pipe.
    pub(super) fn fill(&mut self, from: impl AsFd) -> Result<usize> {
        let count = splice(from, None, &self.write, None, SIZE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.inside += count;
        Ok(count)
    }

    /// Moves what is inside to `to`, as much as it takes; true once the pipe is empty.
    pub(super) fn drain(&mut self, to: impl AsFd) -> Result<bool> {
        if self.inside == 0 {
            return Ok(true);
        }
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        self.inside -= splice(&self.read, None, to, None, self.inside, flags)?;
        Ok(self.inside == 0)
    }
}
