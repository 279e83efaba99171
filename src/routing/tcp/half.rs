//! One direction of a connection.
//!
//! Nothing is kept for an idle direction. All of a thread's connections read into the same memory; what is
//! small is set aside until all have read, what is long is written at once. While something is left that
//! the other side does not take, no more is read. A direction that keeps filling the memory goes on by `splice`.

use std::io;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::pipe::Pipe;
use super::relay::Socket;

/// The size of the memory that a thread's connections read into.
pub(super) const SCRATCH: usize = 64 * 1024;
/// What is no longer than this is a message rather than a transfer: it is copied, and written with all others.
const MESSAGE: usize = 4 * 1024;
/// How often one direction reads before the others get their turn.
const ROUNDS: usize = 4;
/// After so many reads in a row that filled the memory, it is worth a pipe.
const GROWN: u8 = 3;
/// A spliced read below this counts against the pipe.
const WORTH_A_PIPE: usize = 16 * 1024;

/// One direction.
#[derive(Debug)]
pub(super) struct Half {
    rest: Rest,
    phase: Phase,
    /// Counts full reads up to `GROWN`, and small spliced ones down again.
    grown: u8,
}

/// What was read and not yet written.
#[derive(Debug)]
enum Rest {
    Nothing,
    Bytes { bytes: Box<[u8]>, written: usize },
    Piped(Pipe),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The reading side has ended, and the writing side is to be told after all that came before.
    Ending,
    /// Nothing is left to be done.
    Ended,
}

impl Half {
    /// A direction in which nothing has happened.
    pub(super) const fn new() -> Self {
        Self { rest: Rest::Nothing, phase: Phase::Open, grown: 0 }
    }

    /// Whether something that was read has not been written.
    pub(super) const fn pending(&self) -> bool {
        !matches!(self.rest, Rest::Nothing)
    }

    /// Whether the reading side has ended and all was passed on.
    pub(super) fn over(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether it can read or write without waiting for an event.
    pub(super) const fn can_go_on(&self, from: &Socket, to: &Socket) -> bool {
        if self.pending() { to.writable } else { from.readable && matches!(self.phase, Phase::Open) }
    }

    /// Reads what there is, as long as it can be passed on; `moved` is called for each chunk.
    ///
    /// # Errors
    /// The reading side was reset. A writing side that takes no more only ends this direction, because
    /// what it said before may still have to go the other way.
    pub(super) fn read(
        &mut self,
        from: &mut Socket,
        to: &mut Socket,
        memory: &mut [u8],
        moved: impl Fn(),
    ) -> io::Result<()> {
        for _ in 0..ROUNDS {
            if self.pending() || self.phase != Phase::Open || !from.readable {
                break;
            }
            let read = if self.grown >= GROWN { self.splice(from, to) } else { self.copy(from, to, memory) };
            match read {
                Ok(0) => self.phase = Phase::Ending,
                Ok(_) => moved(),
                Err(Errno::AGAIN) => (from.readable, from.interrupted) = (false, false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &mut Socket, to: &mut Socket, memory: &mut [u8]) -> Result<usize, Errno> {
        let (count, _) = recv(&from.descriptor, &mut *memory, RecvFlags::empty())?;
        let full = count == memory.len();
        self.grown = if full { self.grown + 1 } else { 0 };
        // A short read has emptied the socket: what is left is its end, and whatever comes later is a new event.
        from.readable = full || from.interrupted;
        if !from.readable && from.ending {
            self.phase = Phase::Ending;
        }
        if count > MESSAGE {
            self.write_long(to, &memory[..count]);
        } else if count > 0 {
            self.rest = Rest::Bytes { bytes: memory[..count].into(), written: 0 };
        }
        Ok(count)
    }

    /// Writes without a copy, but for what the other side does not take.
    fn write_long(&mut self, to: &Socket, bytes: &[u8]) {
        match send(&to.descriptor, bytes, SendFlags::NOSIGNAL) {
            Ok(written) if written == bytes.len() => {}
            Ok(written) => self.rest = Rest::Bytes { bytes: bytes[written..].into(), written: 0 },
            Err(Errno::AGAIN | Errno::INTR) => self.rest = Rest::Bytes { bytes: bytes.into(), written: 0 },
            Err(_) => self.give_up(),
        }
    }

    /// Reads into a pipe and writes at once.
    fn splice(&mut self, from: &Socket, to: &mut Socket) -> Result<usize, Errno> {
        let Ok(mut pipe) = Pipe::take() else {
            self.grown = 0;
            return Err(Errno::INTR);
        };
        let filled = pipe.fill(&from.descriptor);
        self.rest = Rest::Piped(pipe);
        if let Ok(count) = filled
            && count > 0
        {
            self.grown = if count < WORTH_A_PIPE { self.grown - 1 } else { GROWN + GROWN };
        }
        self.write_rest(to);
        filled
    }

    /// Writes what was read, and then its end, as far as the other side takes it. `last`: the other direction is
    /// over, and the sockets are about to be closed.
    pub(super) fn write(&mut self, to: &mut Socket, last: bool) {
        self.write_rest(to);
        if self.phase == Phase::Ending && !self.pending() {
            self.phase = Phase::Ended;
            if !last {
                // If the other side is gone already there is nobody to tell.
                let _ = shutdown(&to.descriptor, Shutdown::Write);
            }
        }
    }

    fn write_rest(&mut self, to: &mut Socket) {
        // Its end goes along with the last bytes, in one segment.
        let more = if self.phase == Phase::Ending { SendFlags::MORE } else { SendFlags::empty() };
        while self.pending() && to.writable {
            let written = match &mut self.rest {
                Rest::Nothing => Ok(true),
                Rest::Bytes { bytes, written } => {
                    send(&to.descriptor, &bytes[*written..], SendFlags::NOSIGNAL | more).map(|count| {
                        *written += count;
                        *written == bytes.len()
                    })
                }
                Rest::Piped(pipe) => pipe.drain(&to.descriptor),
            };
            match written {
                Ok(true) => {
                    if let Rest::Piped(pipe) = std::mem::replace(&mut self.rest, Rest::Nothing) {
                        pipe.give_back();
                    }
                }
                Ok(false) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => to.writable = false,
                Err(_) => self.give_up(),
            }
        }
    }

    /// The writing side takes no more: nothing is left to be done in this direction.
    fn give_up(&mut self) {
        self.rest = Rest::Nothing;
        self.phase = Phase::Ended;
    }
}
