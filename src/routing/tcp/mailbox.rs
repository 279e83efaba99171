//! What others tell a thread of the plane, which is asleep unless its sockets have something to do.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use tokio::sync::mpsc;

use super::Shared;
use super::relay::Relay;

/// What a thread is told.
#[derive(Debug)]
pub(super) enum Letter {
    /// Accept the clients of this socket for that route.
    Accept(Arc<TcpListener>, Arc<Shared>),
    /// Accept no more of them; then let go of the sender.
    Leave(Arc<TcpListener>, mpsc::Sender<Infallible>),
    /// Carry a connection.
    Carry(Box<Relay>),
    /// End, with all connections.
    End,
}

/// The letters to one thread. As a waker it says that a connection was told to close.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    orders: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { letters: Mutex::default(), orders: AtomicBool::new(false), bell }))
    }

    /// Leaves a letter and wakes the thread.
    pub(super) fn send(&self, letter: Letter) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.ring();
    }

    /// Takes what has come since the last time.
    pub(super) fn take(&self) -> Vec<Letter> {
        // Nothing to be read means nothing new.
        let _ = read(&self.bell, &mut [0; 8]);
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a connection was told to close since the last time.
    pub(super) fn take_orders(&self) -> bool {
        self.orders.swap(false, AcqRel)
    }

    fn ring(&self) {
        // The only failure is that the bell has rung very often already.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.orders.swap(true, AcqRel) {
            self.ring();
        }
    }
}
