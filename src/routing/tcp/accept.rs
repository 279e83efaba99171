//! Accepting on one thread: who comes gets a seat, and who finds none waits in the kernel's queue.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::Shared;
use super::room::Seat;

/// How many clients of an app are held at once. Those after them wait in the kernel's queue, where they cost nothing.
const MOST_HELD: usize = 4096;

/// A listening socket on one thread.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) socket: Arc<TcpListener>,
    pub(super) route: Arc<Shared>,
    /// There was no room: the socket is not watched until it is tried again.
    pub(super) paused: bool,
    /// So it was told.
    told: bool,
}

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) address: SocketAddr,
    pub(super) seat: Seat,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A client.
    One(Client),
    /// One that gave up while it was waiting.
    GaveUp,
    /// No one is there.
    Nobody,
    /// There is no place for more.
    NoRoom,
    /// The socket was ended.
    Ended,
}

impl Accepting {
    pub(super) const fn new(socket: Arc<TcpListener>, route: Arc<Shared>) -> Self {
        Self { socket, route, paused: false, told: false }
    }

    /// Accepts one client, if one is there.
    pub(super) fn accept(&mut self) -> Accepted {
        if self.route.held.load(Relaxed) >= MOST_HELD {
            return self.no_room("as many clients wait for the service as may");
        }
        let Some(seat) = self.route.room.sit() else {
            return self.no_room("dorc has as many connections as its descriptors allow");
        };
        match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                if std::mem::take(&mut self.told) {
                    tracing::info!("new connections are accepted again");
                }
                // One by TCP has an address.
                let address = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let address = address.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
                Accepted::One(Client { socket, address, seat })
            }
            Err(Errno::AGAIN) => Accepted::Nobody,
            Err(Errno::INVAL | Errno::BADF) => Accepted::Ended,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                self.no_room(&io::Error::from(error).to_string())
            }
            // `ECONNABORTED` and its kin: on to the next one.
            Err(_) => Accepted::GaveUp,
        }
    }

    fn no_room(&mut self, reason: &str) -> Accepted {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("new connections have to wait: {reason}");
        }
        Accepted::NoRoom
    }
}
