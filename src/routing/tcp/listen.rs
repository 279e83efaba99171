//! The listen addresses of a route: bound, taken over, exchanged, and emptied without waiting for anyone.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_keepalive, set_socket_reuseaddr, set_tcp_keepcnt, set_tcp_keepidle,
    set_tcp_keepintvl, set_tcp_nodelay, socket_acceptconn,
};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, shutdown, socket_with};
use tokio::sync::mpsc;

use super::Shared;
use super::mailbox::{Letter, Mailbox};

/// How many handshakes the kernel finishes ahead of us, as far as `net.core.somaxconn` allows.
const BACKLOG: i32 = 4096;
/// A client that vanished without a word is noticed after this time of silence, plus eight probes.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// A listening socket and the threads that empty it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) socket: Arc<TcpListener>,
    threads: Vec<Arc<Mailbox>>,
}

impl Listener {
    /// Starts to accept, on each of the threads.
    pub(super) fn accept(&mut self, route: &Arc<Shared>, threads: &[Arc<Mailbox>]) {
        for thread in threads {
            thread.send(Letter::Accept(Arc::clone(&self.socket), Arc::clone(route)));
            self.threads.push(Arc::clone(thread));
        }
    }

    /// Stops to accept; the socket goes on collecting clients for whoever has it too. What is returned ends when all
    /// threads have stopped: until then clients may still be taken in.
    pub(super) fn pause(&mut self) -> mpsc::Receiver<Infallible> {
        let (left, all_left) = mpsc::channel(1);
        for thread in self.threads.drain(..) {
            thread.send(Letter::Leave(Arc::clone(&self.socket), left.clone()));
        }
        all_left
    }

    /// Ends the socket itself, wherever else it may be open.
    pub(super) fn end(mut self) {
        self.pause();
        // Whatever is wrong with it, dropping it is the most that can be done.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pause();
    }
}

/// The sockets that those addresses need. `[::]` stands for both families, and is always two sockets: so
/// each address can come and go alone, and no list of addresses can stand in its own way.
pub(super) fn sockets_for(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut wanted = Vec::new();
    for &address in addresses {
        let also = (address.ip() == Ipv6Addr::UNSPECIFIED && address.port() != 0)
            .then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        for address in std::iter::once(address).chain(also) {
            if address.port() == 0 || !wanted.contains(&address) {
                wanted.push(address);
            }
        }
    }
    wanted
}

/// Takes over the adopted socket of that address, or binds one.
pub(super) fn open(address: SocketAddr, adopted: &mut Vec<TcpListener>) -> io::Result<Listener> {
    let found = adopted.iter().position(|socket| socket.local_addr().is_ok_and(|local| local == address));
    let socket = match found {
        Some(index) => take_over(adopted.swap_remove(index)),
        None => bound(address),
    };
    let socket = socket.map_err(|error| explain(address, error))?;
    let address = socket.local_addr()?;
    Ok(Listener { address, socket: Arc::new(socket), threads: Vec::new() })
}

fn take_over(socket: TcpListener) -> io::Result<TcpListener> {
    if !socket_acceptconn(&socket)? {
        listen(&socket, BACKLOG)?;
    }
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    prepare(&socket)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Sets what accepted sockets inherit, which saves setting it on each of them.
fn prepare(socket: impl AsFd) -> io::Result<()> {
    set_tcp_nodelay(&socket, true)?;
    set_socket_keepalive(&socket, true)?;
    set_tcp_keepidle(&socket, KEEP_ALIVE)?;
    set_tcp_keepintvl(&socket, PROBE_EVERY)?;
    set_tcp_keepcnt(&socket, 8)?;
    Ok(())
}

fn explain(address: SocketAddr, error: io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => format!("cannot listen on {address}: it is in use by another program"),
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {address}: no network interface of this machine has that address")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {address}: this user may not use ports below 1024")
        }
        _ => format!("cannot listen on {address}: {error}"),
    };
    io::Error::new(error.kind(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_ipv6_address_needs_two_sockets() {
        let list =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        assert_eq!(sockets_for(&list(&["[::]:80"])), list(&["[::]:80", "0.0.0.0:80"]));
        assert_eq!(sockets_for(&list(&["0.0.0.0:80", "[::]:80"])), list(&["0.0.0.0:80", "[::]:80"]));
        assert_eq!(sockets_for(&list(&["[::1]:80", "127.0.0.1:0"])), list(&["[::1]:80", "127.0.0.1:0"]));
    }
}
