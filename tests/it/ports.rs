//! Ports to listen on: below those that the kernel gives to any connection that goes out, and below dorc's own choice.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address that nobody has; no other test of this process gets it as well.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other processes that test at the same time begin elsewhere.
    let begin = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = 10_000 + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
