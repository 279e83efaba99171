//! One direction of a connection: what is read on one side is written on the other at once.
//!
//! Nothing is kept for an idle direction. All of a thread's connections read into the same scratch memory;
//! only what the other side does not take stays behind, and while it does, no more is read. A direction
//! that keeps filling the scratch memory goes on by `splice`.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipe::Pipe;

/// The size of the memory that a thread's connections read into.
pub(super) const SCRATCH: usize = 64 * 1024;
/// How often one direction reads before the others get their turn.
const ROUNDS: usize = 4;
/// After so many reads in a row that filled the scratch memory, it is worth a pipe.
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
    /// Nothing is known of the socket yet: try without asking.
    fresh: bool,
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
    /// The reading side has ended, and the writing side has been or is being told.
    Ended,
}

/// What one poll of a direction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for one of the sockets.
    Waits,
    /// It could go on, but it is the others' turn.
    Yields,
    /// It is over.
    Over,
}

impl Half {
    /// A direction in which nothing has happened. `fresh`: there may be something to read already.
    pub(super) const fn new(fresh: bool) -> Self {
        Self { rest: Rest::Nothing, phase: Phase::Open, grown: 0, fresh }
    }

    /// Whether something that was read has not been written.
    pub(super) const fn pending(&self) -> bool {
        !matches!(self.rest, Rest::Nothing)
    }

    /// Whether the reading side has ended and all was passed on.
    pub(super) fn over(&self) -> bool {
        self.phase == Phase::Ended && !self.pending()
    }

    /// Moves what can be moved; `moved` is called for each chunk. `last`: the other direction is over.
    ///
    /// # Errors
    /// The reading side was reset. A writing side that takes no more only ends this direction, because
    /// what it said before may still have to go the other way.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&TcpStream, &TcpStream),
        scratch: &mut [u8],
        moved: impl Fn(),
        last: bool,
    ) -> io::Result<Turn> {
        for _ in 0..ROUNDS {
            if self.flush(cx, to).is_pending() {
                return Ok(Turn::Waits);
            }
            if self.phase == Phase::Ended {
                return Ok(Turn::Over);
            }
            if !self.fresh && from.poll_read_ready(cx)?.is_pending() {
                return Ok(Turn::Waits);
            }
            let read = if self.grown >= GROWN { self.splice(from, to) } else { self.copy(from, to, scratch) };
            match read {
                Ok(0) => self.end(to, last),
                Ok(_) => moved(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::Yields)
    }

    /// Reads into the scratch memory and writes at once.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
        let count = if std::mem::take(&mut self.fresh) {
            recv(from, &mut *scratch, RecvFlags::empty())?.0
        } else {
            read_and_note_short(from, scratch)?
        };
        self.grown = if count == scratch.len() { self.grown + 1 } else { 0 };
        if count > 0 {
            self.write(to, &scratch[..count]);
        }
        Ok(count)
    }

    fn write(&mut self, to: &TcpStream, bytes: &[u8]) {
        match send(to, bytes, SendFlags::NOSIGNAL) {
            Ok(written) if written == bytes.len() => {}
            Ok(written) => self.rest = Rest::Bytes { bytes: bytes[written..].into(), written: 0 },
            Err(Errno::AGAIN | Errno::INTR) => self.rest = Rest::Bytes { bytes: bytes.into(), written: 0 },
            Err(_) => self.phase = Phase::Ended,
        }
    }

    /// Reads into a pipe and writes at once.
    fn splice(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
        let Ok(mut pipe) = Pipe::take() else {
            self.grown = 0;
            return Err(io::ErrorKind::Interrupted.into());
        };
        let filled = from.try_io(Interest::READABLE, || pipe.fill(from));
        match filled {
            Ok(count) if count > 0 => {
                self.grown = if count < WORTH_A_PIPE { self.grown - 1 } else { GROWN + GROWN };
                match pipe.drain(to) {
                    Ok(true) => pipe.give_back(),
                    Err(error) if !wait(&error) => self.phase = Phase::Ended,
                    _ => self.rest = Rest::Piped(pipe),
                }
            }
            _ => pipe.give_back(),
        }
        filled
    }

    /// Writes what was left behind.
    fn flush(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<()> {
        while self.pending() {
            if ready!(to.poll_write_ready(cx)).is_err() {
                self.give_up();
                break;
            }
            let flushed = match &mut self.rest {
                Rest::Nothing => Ok(true),
                Rest::Bytes { bytes, written } => to.try_io(Interest::WRITABLE, || {
                    *written += send(to, &bytes[*written..], SendFlags::NOSIGNAL)?;
                    Ok(*written == bytes.len())
                }),
                Rest::Piped(pipe) => to.try_io(Interest::WRITABLE, || pipe.drain(to)),
            };
            match flushed {
                Ok(true) => {
                    if let Rest::Piped(pipe) = std::mem::replace(&mut self.rest, Rest::Nothing) {
                        pipe.give_back();
                    }
                }
                Ok(false) => {}
                Err(error) if wait(&error) => {}
                Err(_) => self.give_up(),
            }
        }
        Poll::Ready(())
    }

    /// The writing side takes no more: nothing is left to be done in this direction.
    fn give_up(&mut self) {
        self.rest = Rest::Nothing;
        self.phase = Phase::Ended;
    }

    /// The reading side has ended: pass that on, unless both sockets are about to be closed anyway.
    fn end(&mut self, to: &TcpStream, last: bool) {
        self.phase = Phase::Ended;
        if !last {
            // If the other side is gone already there is nobody to tell.
            let _ = shutdown(to, Shutdown::Write);
        }
    }
}

fn wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads once. A read that did not fill the memory has emptied the socket, so the next event is awaited
/// without asking again for nothing. Readiness is edge-triggered: whatever comes later is a new event.
fn read_and_note_short(from: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let read = from.try_io(Interest::READABLE, || {
        let (count, _) = recv(from, &mut *scratch, RecvFlags::empty())?;
        if count > 0 && count < scratch.len() {
            short = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    short.map_or(read, Ok)
}
