//! Listening sockets outlive the daemon in systemd's descriptor store, so that clients queue up while it restarts.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use sd_notify::NotifyState;

use crate::routing::kernel::KernelRoute;

/// The listening sockets that an earlier daemon left in the store.
pub(super) fn adopt() -> Vec<TcpListener> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len()).filter_map(|index| given.take_tcp_listener(index).ok().flatten()).collect()
}

/// Takes out of `adopted` the sockets that listen on one of `wanted`.
pub(super) fn matching(adopted: &mut Vec<TcpListener>, wanted: &[SocketAddr]) -> Vec<TcpListener> {
    let is_wanted =
        |listener: &TcpListener| listener.local_addr().is_ok_and(|address| wanted.contains(&address));
    let (matching, rest) = std::mem::take(adopted).into_iter().partition(is_wanted);
    *adopted = rest;
    matching
}

/// Puts all listening sockets of a route into the store.
pub(super) fn keep_all(route: &KernelRoute) {
    for (address, socket) in route.tcp().listeners() {
        keep(address, &socket);
    }
}

/// Puts a listening socket into the store.
pub(super) fn keep(address: SocketAddr, socket: &OwnedFd) {
    let name = name(address);
    let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[socket.as_fd()]) {
        tracing::warn!(%address, %error, "a restart of the daemon will interrupt this address");
    }
}

/// Takes the sockets of an address out of the store.
pub(super) fn forget(address: SocketAddr) {
    let name = name(address);
    let states = [NotifyState::FdStoreRemove, NotifyState::FdName(&name)];
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%address, %error, "systemd keeps a listening socket that is not needed any more");
    }
}

/// A name for the store, which takes no colons.
fn name(address: SocketAddr) -> String {
    format!("listen-{address}").replace([':', '[', ']', '%'], "_")
}
