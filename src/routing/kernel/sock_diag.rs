//! Asks the kernel which TCP sockets there are, what goes on in them, and ends single connections.
//!
//! On the kernel plane connections don't pass through dorc, so the kernel is who counts them. All of this is
//! about the network namespace that the socket was opened in. Every call blocks, for microseconds as a rule.
//! A dump is not a snapshot: a socket that comes or goes meanwhile may be in it or not, but none is in it twice.

mod exchange;
mod filter;
mod found;
mod message;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use exchange::Exchange;
use found::{Found, Id, State};
use message::{FAMILIES, INET, Request};

/// A conversation with the kernel about its TCP sockets.
#[derive(Debug)]
pub struct SockDiag {
    exchange: Exchange,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where; an unspecified IPv6 address takes IPv4 clients as well, unless `only_v6`.
    pub address: SocketAddr,
    /// What tells it from every other socket since the machine was booted (`SO_COOKIE`).
    pub cookie: u64,
    /// The control group that its maker was in; 0 if the kernel does not say.
    pub cgroup: u64,
    /// Whether it is an IPv6 socket that takes no IPv4 clients.
    pub only_v6: bool,
    /// How many connections it was given that nobody has accepted yet.
    pub queued: u32,
}

/// A connection as it was when the kernel was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    id: Id,
    /// The service's end: the address that the client asked for.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
    /// The control group of the service.
    pub cgroup: u64,
    /// Whether the service has taken it from its listener's queue.
    pub accepted: bool,
    /// Bytes that have come and that the service has not read. The peer's end of sending counts one.
    pub unread: u32,
    /// Bytes that the service has written and the peer has not confirmed. The service's end of sending counts one.
    pub unsent: u32,
    /// What has gone on in it.
    pub info: Option<TcpInfo>,
}

/// What has gone on in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// How long ago something was sent; since it began, if nothing was yet.
    pub since_sent: Duration,
    /// How long ago something was received; since it began, if nothing was yet.
    pub since_received: Duration,
    /// How long ago the peer last confirmed anything, be it only that it is still there.
    pub since_acked: Duration,
    /// How long an answer of the peer's kernel takes.
    pub rtt: Duration,
    /// All bytes that have come.
    pub bytes_received: u64,
    /// All bytes that were sent and confirmed.
    pub bytes_sent: u64,
}

impl SockDiag {
    /// Opens the conversation.
    ///
    /// # Errors
    /// The kernel has no such interface, or there are no descriptors left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { exchange: Exchange::open()? })
    }

    /// All sockets that listen on that port, of both families.
    ///
    /// # Errors
    /// The kernel refuses, or does not answer in time.
    pub fn listening(&mut self, port: u16) -> io::Result<Vec<Listening>> {
        let found = self.dump(1 << State::LISTEN.0, None, &[port])?;
        let found = found.into_iter().filter(|one| one.state == State::LISTEN);
        Ok(found.map(Found::into_listening).collect())
    }

    /// The connections of the control group whose local port is one of `ports`. The group's id is the inode
    /// number of its folder; groups below it are others.
    ///
    /// Counted is what the service can still be hurt in: connections that are open both ways or half-closed,
    /// also those that wait to be accepted. Not counted are those that the service has closed (what is left
    /// to send of them the kernel sends without it) and half-open handshakes.
    ///
    /// # Errors
    /// The kernel refuses, does not answer in time, or does not know the control groups of sockets.
    pub fn connections(&mut self, cgroup: u64, ports: &[u16]) -> io::Result<Vec<Connection>> {
        let mut connections = Vec::new();
        let found = self.dump(State::CONNECTED, Some(cgroup), ports)?;
        // What is only remembered of a closed connection belongs to nobody.
        for one in found.into_iter().filter(Found::is_open) {
            // One whose owner isn't known must not look like one that isn't there.
            let Some(owner) = one.cgroup else { return Err(no_cgroups()) };
            if owner == cgroup {
                connections.extend(one.into_connection());
            }
        }
        Ok(connections)
    }

    /// The half-open handshakes to one of these local ports: local address and peer. They belong to no
    /// control group yet.
    ///
    /// # Errors
    /// The kernel refuses, or does not answer in time.
    pub fn handshakes(&mut self, ports: &[u16]) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
        let found = self.dump(1 << State::SYN_RECV.0, None, ports)?;
        let found = found.into_iter().filter(|one| one.state == State::SYN_RECV);
        Ok(found.map(|one| (one.local, one.peer)).collect())
    }

    /// Looks at one connection again; `None` if it has gone, or the service has closed it.
    ///
    /// # Errors
    /// The kernel refuses, or does not answer in time.
    pub fn again(&mut self, connection: &Connection) -> io::Result<Option<Connection>> {
        let found = match self.exchange.ask(&Request::look_at(&connection.id)) {
            Err(error) if has_gone(&error) => return Ok(None),
            found => found?,
        };
        let same = found.into_iter().find(|one| one.id.cookie() == connection.id.cookie() && one.is_open());
        Ok(same.and_then(Found::into_connection))
    }

    /// Ends a connection with a reset to both sides; false if it had gone, or the service had closed it.
    ///
    /// # Errors
    /// dorc may not (that needs `CAP_NET_ADMIN`), the kernel can't, or it does not answer in time.
    pub fn destroy(&mut self, connection: &Connection) -> io::Result<bool> {
        // The kernel would "end" one that is closed and only remembered, too, and it would be counted.
        if self.again(connection)?.is_none() {
            return Ok(false);
        }
        match self.exchange.ask(&Request::destroy(&connection.id)) {
            Ok(_) => Ok(true),
            Err(error) if has_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The sockets in these states, each once. The kernel leaves out what it can; the states of what it
    /// answers, and the group, are the caller's to check.
    fn dump(&mut self, states: u32, cgroup: Option<u64>, ports: &[u16]) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        if ports.is_empty() {
            return Ok(all);
        }
        for family in FAMILIES {
            match self.dump_family(family, states, cgroup, ports) {
                // A kernel without IPv6 does not know the family.
                Err(error) if family != INET && error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                }
                found => all.extend(found?),
            }
        }
        let mut seen = HashSet::new();
        all.retain(|one| ports.contains(&one.local.port()) && seen.insert(one.id.cookie()));
        Ok(all)
    }

    fn dump_family(
        &mut self,
        family: u8,
        states: u32,
        cgroup: Option<u64>,
        ports: &[u16],
    ) -> io::Result<Vec<Found>> {
        let all = Request::dump(family, states);
        let Some(filter) = filter::program(cgroup, ports) else { return self.exchange.ask(&all) };
        match self.exchange.ask(&all.clone().filtered(filter)) {
            // Its filters may be older than ours; then it is us who leave out.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.exchange.ask(&all)
            }
            found => found,
        }
    }
}

/// Whether the kernel says that there is no such socket (any more).
fn has_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::STALE].iter().any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

fn no_cgroups() -> io::Error {
    let reason = "the kernel does not say which control group a connection belongs to (Linux 5.9 does)";
    io::Error::new(io::ErrorKind::Unsupported, reason)
}
