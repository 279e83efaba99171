//! The connections that go straight to a service: counted and closed from outside.

use std::cmp::Ordering;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::listeners;
use super::sock_diag::{Connection, SockDiag, TcpInfo};
use crate::routing::Which;

/// What comes after the answer of a service follows its request within this time: the client's acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);
/// How often, and how far apart, connections that are to be closed are looked at until their request is answered.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// Whether a connection to that address is one of the app's.
fn is_listened_on(addresses: &[SocketAddr], local: SocketAddr) -> bool {
    addresses.iter().any(|address| {
        let all = address.ip().is_unspecified() && address.is_ipv4() == local.is_ipv4();
        address.port() == local.port() && (all || address.ip() == local.ip())
    })
}

fn ports(addresses: &[SocketAddr]) -> Vec<u16> {
    let mut ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The connections of the processes of a control group that came to one of these addresses.
pub(super) fn connections(group: &Path, addresses: &[SocketAddr]) -> io::Result<Vec<Connection>> {
    let mut diag = SockDiag::open()?;
    let mut found = Vec::new();
    for number in listeners::group_numbers(group)? {
        found.extend(diag.connections(number, &ports(addresses))?);
    }
    found.retain(|connection| is_listened_on(addresses, connection.local));
    Ok(found)
}

pub(super) fn handshakes(addresses: &[SocketAddr]) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
    let mut found = SockDiag::open()?.handshakes(&ports(addresses))?;
    found.retain(|(local, _)| is_listened_on(addresses, *local));
    Ok(found)
}

/// Closes connections, and says how many. Of those that are to be closed in any case, the ones with a request under way get
/// a moment to answer it.
pub(super) fn close(connections: &[Connection], which: Which) -> io::Result<usize> {
    let mut diag = SockDiag::open()?;
    match which {
        Which::Quiet(least) => {
            let is_quiet = |connection: &Connection| is_quiet(connection, least);
            let candidates: Vec<_> = connections.iter().filter(|connection| is_quiet(connection)).collect();
            close_those(&mut diag, candidates, is_quiet).map(|(closed, _)| closed)
        }
        Which::All => {
            let (mut all, mut left) = (0, connections.iter().collect());
            for _ in 0..LOOKS {
                let (closed, busy) = close_those(&mut diag, left, |connection| !is_busy(connection))?;
                (all, left) = (all + closed, busy);
                if left.is_empty() {
                    break;
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
            Ok(all + close_those(&mut diag, left, |_| true)?.0)
        }
    }
}

/// Closes those that are so in the very moment; how many, and the ones that are not so.
fn close_those<'a>(
    diag: &mut SockDiag,
    connections: Vec<&'a Connection>,
    is_so: impl Fn(&Connection) -> bool,
) -> io::Result<(usize, Vec<&'a Connection>)> {
    let (mut closed, mut others) = (0, Vec::new());
    for connection in connections {
        // What was seen a moment ago is not enough: it may have got a request since.
        match diag.again(connection)? {
            Some(now) if is_so(&now) => closed += usize::from(diag.destroy(connection)?),
            Some(_) => others.push(connection),
            None => {}
        }
    }
    Ok((closed, others))
}

/// Whether something is certainly under way.
fn is_busy(connection: &Connection) -> bool {
    let asked = connection.info.as_ref().is_some_and(|info| info.since_received < info.since_sent);
    connection.unread > 0 || connection.unsent > 0 || asked
}

/// Whether nothing is unanswered and nothing was said for so long.
fn is_quiet(connection: &Connection, least: Duration) -> bool {
    let Some(info) = &connection.info else { return false };
    let silent = info.since_sent >= least && info.since_received >= least;
    silent && connection.unread == 0 && connection.unsent == 0 && is_answered(info)
}

/// Whether it was the service that spoke last.
///
/// The kernel notes the times of both in ticks of some milliseconds, so that a question and its quick answer have the same.
/// An answer is acknowledged by the client a little later, or with its next question; a question that nobody has answered is the
/// last thing that came from the client.
fn is_answered(info: &TcpInfo) -> bool {
    let acknowledged = info.since_received.checked_sub(info.since_acked);
    let by_acknowledgement = acknowledged.is_some_and(|later| !later.is_zero() && later <= ACKNOWLEDGED);
    match info.since_sent.cmp(&info.since_received) {
        _ if info.bytes_received == 0 => true,
        Ordering::Less => true,
        Ordering::Equal => by_acknowledgement,
        Ordering::Greater => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(sent: u64, received: u64, acknowledged: u64) -> TcpInfo {
        TcpInfo {
            since_sent: Duration::from_millis(sent),
            since_received: Duration::from_millis(received),
            since_acked: Duration::from_millis(acknowledged),
            rtt: Duration::ZERO,
            bytes_received: 1,
            bytes_sent: 1,
        }
    }

    #[test]
    fn who_spoke_last_is_known_or_is_taken_to_be_the_client() {
        assert!(is_answered(&info(1000, 1004, 1000)), "the answer came a tick later");
        assert!(!is_answered(&info(1004, 1000, 1000)), "the question came after the answer before");
        assert!(is_answered(&info(1004, 1004, 960)), "the answer came at once, and was acknowledged");
        assert!(!is_answered(&info(1004, 1004, 1004)), "the next question may have come at once, too");
        assert!(!is_answered(&info(9000, 9000, 1000)), "an acknowledgement of something else");
        assert!(is_answered(&TcpInfo { bytes_received: 0, ..info(1004, 1004, 1004) }), "nobody asked");
    }

    #[test]
    fn an_address_is_one_of_the_apps_or_not() {
        let listen = ["0.0.0.0:80", "[::1]:81"].map(|text| text.parse().expect("an address"));
        let is = |text: &str| is_listened_on(&listen, text.parse().expect("an address"));
        assert!(is("192.0.2.1:80") && is("[::1]:81"));
        assert!(!is("192.0.2.1:81") && !is("[::1]:80") && !is("[::2]:81"));
    }
}
