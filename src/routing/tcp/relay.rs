//! One connection from its service's accept to its end: both directions, moved on by its thread's event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Waker;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use super::half::Half;
use super::room::Seat;
use crate::routing::connections::{Order, Ticket};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Service,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Client, Self::Service];
}

/// A socket and what is known of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    /// There may be something to read.
    pub(super) readable: bool,
    /// It may take something.
    pub(super) writable: bool,
    /// Its end is there to be read, right behind whatever comes before it.
    pub(super) ending: bool,
    /// A short read need not be the last one: an error or an urgent byte is in the way.
    pub(super) interrupted: bool,
}

impl Socket {
    const fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, readable: false, writable: true, ending: false, interrupted: false }
    }

    fn note(&mut self, flags: EventFlags) {
        let over = EventFlags::HUP | EventFlags::ERR;
        self.ending |= flags.contains(EventFlags::RDHUP);
        self.interrupted |= flags.intersects(over | EventFlags::PRI);
        self.readable |= flags.contains(EventFlags::IN) || self.ending || self.interrupted;
        self.writable |= flags.intersects(over | EventFlags::OUT);
    }
}

/// A client and a service that talk.
///
/// The order of the fields is the order of their end: the sockets are closed before the connection stops
/// counting, so that a count of zero means that nothing is left.
#[derive(Debug)]
pub(super) struct Relay {
    client: Socket,
    service: Socket,
    up: Half,
    down: Half,
    /// It is among those that get the next turn.
    pub(super) due: bool,
    ticket: Ticket,
    _seat: Seat,
}

impl Relay {
    /// Joins the two.
    pub(super) fn new(client: OwnedFd, service: OwnedFd, ticket: Ticket, seat: Seat) -> Self {
        ticket.connected();
        Self {
            client: Socket::new(client),
            service: Socket::new(service),
            up: Half::new(),
            down: Half::new(),
            due: false,
            ticket,
            _seat: seat,
        }
    }

    pub(super) fn socket(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::Client => self.client.descriptor.as_fd(),
            Side::Service => self.service.descriptor.as_fd(),
        }
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, side: Side, flags: EventFlags) {
        match side {
            Side::Client => self.client.note(flags),
            Side::Service => self.service.note(flags),
        }
    }

    /// Reads what there is, both ways.
    ///
    /// # Errors
    /// One side was reset, and so has the other to be.
    pub(super) fn read(&mut self, memory: &mut [u8]) -> io::Result<()> {
        let Self { client, service, up, down, ticket, .. } = self;
        up.read(client, service, memory, || ticket.client_spoke())?;
        down.read(service, client, memory, || ticket.service_spoke())
    }

    /// Writes what was read.
    pub(super) fn write(&mut self) {
        self.up.write(&mut self.service, self.down.over());
        self.down.write(&mut self.client, self.up.over());
    }

    /// Whether there is more to be done without waiting for an event.
    pub(super) const fn can_go_on(&self) -> bool {
        self.up.can_go_on(&self.client, &self.service) || self.down.can_go_on(&self.service, &self.client)
    }

    /// Whether both sides have said all.
    pub(super) fn over(&self) -> bool {
        self.up.over() && self.down.over()
    }

    /// Says who is to be woken for an order.
    pub(super) fn wake_on_order(&self, waker: &Waker) {
        self.ticket.wake_on_order(waker);
    }

    /// Whether it was told something.
    pub(super) fn has_order(&self) -> bool {
        self.ticket.order().is_some()
    }

    /// Does as it was told; true if it is to end.
    pub(super) fn obeys_by_ending(&self) -> bool {
        match self.ticket.order() {
            None => false,
            Some(Order::Close) => {
                // An answer that was cut must not look like one that was complete.
                if self.ticket.unanswered() || self.up.pending() || self.down.pending() {
                    self.reset();
                }
                true
            }
            Some(Order::CloseIfQuiet) if self.is_quiet() => true,
            Some(Order::CloseIfQuiet) => {
                self.ticket.spared();
                false
            }
        }
    }

    /// Whether nothing is on its way, also not in the sockets.
    fn is_quiet(&self) -> bool {
        self.ticket.still_quiet()
            && !self.up.pending()
            && !self.down.pending()
            && is_empty(&self.client.descriptor)
            && is_empty(&self.service.descriptor)
    }

    /// Makes both sides see a reset instead of an orderly end when the sockets are closed.
    pub(super) fn reset(&self) {
        for side in Side::BOTH {
            // A socket that refuses is closed in the ordinary way.
            let _ = set_socket_linger(self.socket(side), Some(Duration::ZERO));
        }
    }
}

fn is_empty(socket: &OwnedFd) -> bool {
    let mut byte = [0; 1];
    matches!(recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN) | Ok((_, 0)))
}
