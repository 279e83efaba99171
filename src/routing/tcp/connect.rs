//! The way to the service: at once where it answers, and held for a while where it does not.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, connect, getsockname, recv,
    send, socket_with,
};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Shared;
use super::accept::Client;
use super::mailbox::{Letter, Mailbox};
use super::relay::Relay;
use super::room::Seat;
use crate::model::colour::Colour;
use crate::routing::Target;
use crate::routing::connections::Ticket;

/// How long a handshake may take before its client counts as held: the service is on the same machine.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// The pauses between the attempts at a service that refuses.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The pace of the attempts. Whoever has locked it is the one that tries, for all who are held.
#[derive(Debug, Default)]
pub(super) struct Pace {
    refused_by: Option<Target>,
    pause: Duration,
}

impl Pace {
    fn next(&mut self, target: Target) -> Duration {
        if self.refused_by != Some(target) || self.pause.is_zero() {
            *self = Self { refused_by: Some(target), pause: FIRST_PAUSE };
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// A connection to a service, which counts as one of its colour.
struct Way {
    service: OwnedFd,
    target: Target,
    ticket: Ticket,
}

impl Way {
    /// Joins its two ends. A service that wants to know is told first who its client is.
    fn join(self, client: OwnedFd, peer: SocketAddr, seat: Seat) -> Box<Relay> {
        let Self { service, target, ticket } = self;
        if let Some(version) = target.proxy_protocol {
            let listen = getsockname(&client).ok().and_then(|own| SocketAddr::try_from(own).ok());
            let header = version.header(peer, listen.unwrap_or(target.address));
            // There is room for the first bytes of a connection; a service that is gone again is noticed by its relay.
            let _ = send(&service, &header, SendFlags::NOSIGNAL);
        }
        Box::new(Relay::new(client, service, ticket, seat))
    }
}

/// A started connection.
enum Dial {
    Connected(OwnedFd),
    /// The handshake is not over.
    Waiting(OwnedFd),
}

fn dial(address: SocketAddr) -> io::Result<Dial> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_tcp_nodelay(&socket, true)?;
    // On the loopback interface the handshake is over when the first call returns, only that it can't say
    // so: the second one can, and saves a turn through the event loop.
    let connected = match connect(&socket, &address) {
        Err(Errno::INPROGRESS) => match connect(&socket, &address) {
            Err(Errno::ALREADY | Errno::INPROGRESS) => false,
            Ok(()) | Err(Errno::ISCONN) => true,
            Err(error) => return Err(error.into()),
        },
        other => other.map(|()| true)?,
    };
    // Where nobody listens on a port of the ephemeral range, the kernel may give just that port to this side:
    // the socket would be connected with itself, and keep the port from the service.
    if getsockname(&socket)? == SocketAddrAny::from(address) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(if connected { Dial::Connected(socket) } else { Dial::Waiting(socket) })
}

/// A client that was just accepted: joined with its service at once, or else looked after in a task of its own
/// until it can be sent to the thread.
pub(super) fn serve(route: &Arc<Shared>, client: Client, thread: &Arc<Mailbox>) -> Option<Box<Relay>> {
    let Client { socket: client, address: peer, seat } = client;
    let mut started = None;
    // Nobody overtakes those who are held already; beside a canary they may be held for the other service.
    if (route.held.load(Relaxed) == 0 || route.register.course().canary.is_some())
        && let Some((target, ticket)) = route.register.choose(peer.ip())
    {
        match dial(target.address) {
            Ok(Dial::Connected(service)) => {
                return Some(Way { service, target, ticket }.join(client, peer, seat));
            }
            Ok(Dial::Waiting(service)) => started = Some(Way { service, target, ticket }),
            Err(_) => {}
        }
    }
    // A client is counted from the moment on in which it is accepted: here as held, else by its ticket.
    let held = started.is_none().then(|| Held::new(route));
    let (shared, thread) = (Arc::clone(route), Arc::clone(thread));
    route.waiting.spawn(async move {
        if let Some((client, way)) = shared.wait(client, peer.ip(), started, held).await {
            thread.send(Letter::Carry(way.join(client, peer, seat)));
        }
    });
    None
}

impl Shared {
    /// Waits for a handshake that was started, and if nothing comes of it, for any service.
    async fn wait(
        self: &Arc<Self>,
        client: OwnedFd,
        peer: IpAddr,
        started: Option<Way>,
        held: Option<Held>,
    ) -> Option<(OwnedFd, Way)> {
        if let Some(Way { service, target, ticket }) = started
            && let Ok(Ok(service)) = timeout(HANDSHAKE, established(service)).await
        {
            return Some((client, Way { service, target, ticket }));
        }
        self.hold(client, peer, held.unwrap_or_else(|| Held::new(self))).await
    }

    /// Keeps a client until a service has taken it; `None`: it has gone away, or its time is over.
    async fn hold(&self, client: OwnedFd, peer: IpAddr, _held: Held) -> Option<(OwnedFd, Way)> {
        let patience = self.patience();
        let client = TcpStream::from_std(client.into()).ok()?;
        let found = tokio::select! {
            biased;
            found = timeout(patience, self.find(peer)) => found,
            () = gone(&client) => return None,
            () = self.closed() => return None,
        };
        if found.is_err() {
            self.given_up.fetch_add(1, Relaxed);
        }
        let way = found.ok()?;
        Some((client.into_std().ok()?.into(), way))
    }

    /// A connection to the service of this client, whichever and whenever.
    async fn find(&self, peer: IpAddr) -> Way {
        let mut moves = self.moves.subscribe();
        loop {
            moves.mark_unchanged();
            tokio::select! {
                biased;
                found = self.attempt(peer) => return found,
                _ = moves.changed() => {}
            }
        }
    }

    /// Tries in turn with all others that wait for the same service until it answers. Whoever is first goes on at the pace;
    /// once it succeeds, each of those behind it succeeds at its first attempt.
    async fn attempt(&self, peer: IpAddr) -> Way {
        let Some(target) = self.register.course().of(peer) else { return pending().await };
        let mut pace = self.paces[target.colour].lock().await;
        loop {
            let pause = pace.next(target);
            let next = Instant::now() + pause;
            // A service whose queue is full drops the handshake, and its repetition by the kernel comes late.
            if let Ok(Ok(found)) = timeout_at(next, self.connect(peer)).await {
                *pace = Pace::default();
                return found;
            }
            sleep_until(next).await;
        }
    }

    async fn connect(&self, peer: IpAddr) -> io::Result<Way> {
        let (target, ticket) = self.register.choose(peer).ok_or(io::ErrorKind::NotConnected)?;
        let service = match dial(target.address)? {
            Dial::Connected(service) => service,
            Dial::Waiting(service) => established(service).await?,
        };
        Ok(Way { service, target, ticket })
    }

    async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

/// Waits for the end of a handshake.
async fn established(service: OwnedFd) -> io::Result<OwnedFd> {
    let service = TcpStream::from_std(service.into())?;
    service.writable().await?;
    socket_error(&service)??;
    Ok(service.into_std()?.into())
}

/// Returns when a held client has gone away. One that has sent something and then its end still wants its
/// answer; only a reset ends that.
async fn gone(client: &TcpStream) {
    loop {
        if client.readable().await.is_err() {
            return;
        }
        let mut byte = [0; 1];
        let mut waiting = false;
        let peeked = client.try_io(Interest::READABLE, || {
            let (_, count) = recv(client, &mut byte, RecvFlags::PEEK)?;
            waiting = count > 0;
            // What was said is left for the service: wait for the next event, which can only be a reset or more.
            if waiting { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
        if waiting {
            let _ = client.ready(Interest::ERROR).await;
            return;
        }
    }
}

/// Counts a held client for as long as it lives.
struct Held(Arc<Shared>);

impl Held {
    fn new(route: &Arc<Shared>) -> Self {
        route.held.fetch_add(1, Relaxed);
        Self(Arc::clone(route))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

/// How many connections of both colours there are.
pub(super) fn open_in_all(route: &Shared) -> usize {
    Colour::BOTH.into_iter().map(|colour| route.register.open(colour)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_connected_with_himself() {
        // A port that the kernel gives to those who connect, and that has no listener.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let address = client.local_addr().expect("it is connected");
        drop((listener, client));
        for _ in 0..60_000 {
            match dial(address) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
                Ok(_) => panic!("there is nobody to be connected with"),
            }
        }
    }
}
