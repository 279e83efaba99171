//! One connection from its service's accept to its end: both directions in one small task.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

use super::half::{Half, SCRATCH, Turn};
use super::room::Seat;
use crate::routing::connections::{Order, Ticket};

thread_local! {
    static MEMORY: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A client and a service that talk.
///
/// The order of the fields is the order of their end: the sockets are closed before the connection stops
/// counting, so that a count of zero means that nothing is left.
#[derive(Debug)]
pub(super) struct Relay {
    client: TcpStream,
    service: TcpStream,
    up: Half,
    down: Half,
    ticket: Ticket,
    _seat: Seat,
}

impl Relay {
    /// Joins the two.
    pub(super) fn new(client: TcpStream, service: TcpStream, ticket: Ticket, seat: Seat) -> Self {
        ticket.connected();
        Self { client, service, up: Half::new(true), down: Half::new(false), ticket, _seat: seat }
    }

    fn pump(&mut self, cx: &mut Context<'_>) -> io::Result<(Turn, Turn)> {
        let Self { client, service, up, down, ticket, .. } = self;
        MEMORY.with_borrow_mut(|memory| {
            let above = up.pump(cx, (client, service), memory, || ticket.client_spoke(), down.over())?;
            let below = down.pump(cx, (service, client), memory, || ticket.service_spoke(), up.over())?;
            Ok((above, below))
        })
    }

    /// Does as it was told; true if it is to end.
    fn obey(&self, order: Order) -> bool {
        match order {
            Order::Close => {
                // An answer that was cut must not look like one that was complete.
                if self.ticket.unanswered() || self.up.pending() || self.down.pending() {
                    self.reset();
                }
                true
            }
            Order::CloseIfQuiet if self.is_quiet() => true,
            Order::CloseIfQuiet => {
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
            && is_empty(&self.client)
            && is_empty(&self.service)
    }

    /// Makes both sides see a reset instead of an orderly end when the sockets are closed.
    fn reset(&self) {
        for side in [&self.client, &self.service] {
            // A socket that refuses is closed in the ordinary way.
            let _ = set_socket_linger(side, Some(Duration::ZERO));
        }
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.ticket.wake_on_order(cx.waker());
        let turns = self.pump(cx);
        if turns.is_err() {
            self.reset();
            return Poll::Ready(());
        }
        if let Some(order) = self.ticket.order()
            && self.obey(order)
        {
            return Poll::Ready(());
        }
        match turns {
            Ok((Turn::Over, Turn::Over)) => return Poll::Ready(()),
            Ok((Turn::Yields, _) | (_, Turn::Yields)) => cx.waker().wake_by_ref(),
            _ => {}
        }
        Poll::Pending
    }
}

fn is_empty(socket: &TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN) | Ok((_, 0)))
}
