//! A socket as the kernel describes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::message::{INET, INET6, attributes, bytes_at, u32_at, u64_at};
use super::{Connection, Listening, TcpInfo};

/// The size of `struct inet_diag_msg`; attributes follow.
const DESCRIPTION: usize = 72;
/// `struct inet_diag_sockid`, whose parts are found at these places.
const ID: usize = 48;
const SOURCE_PORT: usize = 0;
const PEER_PORT: usize = 2;
const SOURCE: usize = 4;
const PEER: usize = 20;
const INTERFACE: usize = 36;
const COOKIE: usize = 40;

/// Attributes: `INET_DIAG_INFO`, `INET_DIAG_SKV6ONLY`, `INET_DIAG_CGROUP_ID`.
const INFO: u16 = 2;
const ONLY_V6: u16 = 11;
const CGROUP: u16 = 21;

/// Which socket: the kernel's own description, which it wants back byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    family: u8,
    raw: [u8; ID],
}

impl Id {
    /// None in particular.
    pub(super) fn any(family: u8) -> Self {
        let mut raw = [0; ID];
        // "No cookie" is all ones.
        raw[COOKIE..].fill(u8::MAX);
        Self { family, raw }
    }

    pub(super) fn family(&self) -> u8 {
        self.family
    }

    pub(super) fn raw(&self) -> &[u8; ID] {
        &self.raw
    }

    /// What no other socket has.
    pub(super) fn cookie(&self) -> u64 {
        // Two numbers of 32 bits, the lower one first, whatever the machine's order is.
        let half = |at| u64::from(u32_at(&self.raw, at).unwrap_or_default());
        half(COOKIE) | half(COOKIE + 4) << 32
    }

    fn address(&self, address: usize, port: usize) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(bytes_at(&self.raw, port)?);
        if self.family == INET {
            let address = Ipv4Addr::from(bytes_at::<4>(&self.raw, address)?);
            return Some(SocketAddr::from((address, port)));
        }
        let address = Ipv6Addr::from(bytes_at::<16>(&self.raw, address)?);
        // Only these mean something else on another interface.
        let scope = if address.is_unicast_link_local() { u32_at(&self.raw, INTERFACE)? } else { 0 };
        // A dual-stack socket sees IPv4 clients by IPv6 addresses that nobody else calls them by.
        Some(match address.to_canonical() {
            IpAddr::V4(address) => SocketAddr::from((address, port)),
            IpAddr::V6(address) => SocketAddr::from(SocketAddrV6::new(address, port, 0, scope)),
        })
    }
}

/// The state of a TCP socket, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(pub(super) u8);

impl State {
    const ESTABLISHED: Self = Self(1);
    pub(super) const SYN_RECV: Self = Self(3);
    const FIN_WAIT1: Self = Self(4);
    const FIN_WAIT2: Self = Self(5);
    const CLOSE_WAIT: Self = Self(8);
    const LAST_ACK: Self = Self(9);
    pub(super) const LISTEN: Self = Self(10);
    const CLOSING: Self = Self(11);

    /// The states in which a service can have a connection open, as bits.
    pub(super) const CONNECTED: u32 = 1 << Self::ESTABLISHED.0
        | 1 << Self::FIN_WAIT1.0
        | 1 << Self::FIN_WAIT2.0
        | 1 << Self::CLOSE_WAIT.0
        | 1 << Self::LAST_ACK.0
        | 1 << Self::CLOSING.0;
}

/// A socket that the kernel told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) state: State,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) cgroup: Option<u64>,
    incoming: u32,
    outgoing: u32,
    inode: u32,
    only_v6: bool,
    info: Option<TcpInfo>,
}

impl Found {
    /// Reads a description; `None` if it is none of a TCP socket.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let [family, state] = bytes_at(body, 0)?;
        if family != INET && family != INET6 {
            return None;
        }
        let id = Id { family, raw: bytes_at(body, 4)? };
        let mut found = Self {
            id,
            state: State(state),
            local: id.address(SOURCE, SOURCE_PORT)?,
            peer: id.address(PEER, PEER_PORT)?,
            cgroup: None,
            incoming: u32_at(body, 56)?,
            outgoing: u32_at(body, 60)?,
            inode: u32_at(body, 68)?,
            only_v6: false,
            info: None,
        };
        for (kind, held) in attributes(body.get(DESCRIPTION..)?) {
            match kind {
                INFO => found.info = tcp_info(held),
                ONLY_V6 => found.only_v6 = held.first().is_some_and(|&only| only != 0),
                CGROUP => found.cgroup = u64_at(held, 0),
                _ => {}
            }
        }
        Some(found)
    }

    /// Whether the service has it open or can still accept it.
    pub(super) fn is_open(&self) -> bool {
        match self.state {
            // Without an inode it is in a listener's queue.
            State::ESTABLISHED | State::CLOSE_WAIT => true,
            // Half-closed; without an inode the service has closed it, and the kernel does what is left.
            State(state) => {
                State::CONNECTED & 1_u32.checked_shl(state.into()).unwrap_or(0) != 0 && self.inode != 0
            }
        }
    }

    pub(super) fn into_listening(self) -> Listening {
        Listening {
            address: self.local,
            cookie: self.id.cookie(),
            cgroup: self.cgroup.unwrap_or(0),
            only_v6: self.only_v6,
            queued: self.incoming,
        }
    }

    /// `None` if its control group isn't known.
    pub(super) fn into_connection(self) -> Option<Connection> {
        Some(Connection {
            id: self.id,
            local: self.local,
            peer: self.peer,
            cgroup: self.cgroup?,
            accepted: self.inode != 0,
            unread: self.incoming,
            unsent: self.outgoing,
            info: self.info,
        })
    }
}

/// `struct tcp_info`, of which older kernels have only the beginning.
fn tcp_info(bytes: &[u8]) -> Option<TcpInfo> {
    let milliseconds = |at| Some(Duration::from_millis(u32_at(bytes, at)?.into()));
    Some(TcpInfo {
        since_sent: milliseconds(44)?,
        since_received: milliseconds(52)?,
        since_acked: milliseconds(56)?,
        rtt: Duration::from_micros(u32_at(bytes, 68)?.into()),
        bytes_sent: u64_at(bytes, 120)?,
        bytes_received: u64_at(bytes, 128)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn description(family: u8, state: u8, inode: u32) -> Vec<u8> {
        let mut body = vec![0; DESCRIPTION];
        body[..2].copy_from_slice(&[family, state]);
        body[4..8].copy_from_slice(&[0x1f, 0x90, 0x01, 0xbb]);
        body[44..52].copy_from_slice(&[7_u32.to_ne_bytes(), 1_u32.to_ne_bytes()].concat());
        body[68..].copy_from_slice(&inode.to_ne_bytes());
        body
    }

    fn add(body: &mut Vec<u8>, kind: u16, held: &[u8]) {
        body.extend(u16::try_from(4 + held.len()).expect("it is short").to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(held);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    #[test]
    fn reads_addresses_cookie_group_and_info() {
        let mut body = description(INET, 1, 5);
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[24..28].copy_from_slice(&[192, 0, 2, 7]);
        let mut info = [0; 136];
        info[52..56].copy_from_slice(&1500_u32.to_ne_bytes());
        info[120..128].copy_from_slice(&9_u64.to_ne_bytes());
        add(&mut body, INFO, &info);
        add(&mut body, CGROUP, &77_u64.to_ne_bytes());
        let found = Found::decode(&body).expect("it is whole");
        assert_eq!(found.id.cookie(), 1 << 32 | 7);
        let connection = found.into_connection().expect("its group is known");
        assert_eq!(connection.local.to_string(), "127.0.0.1:8080");
        assert_eq!(connection.peer.to_string(), "192.0.2.7:443");
        assert_eq!((connection.cgroup, connection.accepted), (77, true));
        let info = connection.info.expect("it was told");
        assert_eq!((info.since_received, info.bytes_sent), (Duration::from_millis(1500), 9));
    }

    #[test]
    fn mapped_addresses_are_told_as_what_they_are_and_kept_as_they_were() {
        let mut body = description(INET6, 1, 5);
        body[18..24].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        body[24..28].copy_from_slice(&[0xfe, 0x80, 0, 0]);
        body[40..44].copy_from_slice(&3_u32.to_ne_bytes());
        let found = Found::decode(&body).expect("it is whole");
        assert_eq!(found.local.to_string(), "127.0.0.1:8080");
        assert_eq!(found.peer.to_string(), "[fe80::%3]:443");
        assert_eq!(found.id.raw()[..], body[4..52]);
        assert_eq!(found.into_connection(), None, "its group isn't known");
    }

    #[test]
    fn open_is_what_the_service_has_not_closed() {
        let open = |state, inode| Found::decode(&description(INET, state, inode)).expect("whole").is_open();
        let with_inode: Vec<u8> = (0..=255).filter(|&state| open(state, 1)).collect();
        let without: Vec<u8> = (0..=255).filter(|&state| open(state, 0)).collect();
        assert_eq!((with_inode, without), (vec![1, 4, 5, 8, 9, 11], vec![1, 8]));
    }

    #[test]
    fn what_is_short_or_of_another_family_is_no_socket() {
        let whole = description(INET, 1, 5);
        for length in 0..whole.len() {
            assert_eq!(Found::decode(&whole[..length]), None, "{length}");
        }
        assert_eq!(Found::decode(&description(1, 1, 5)), None);
    }

    #[test]
    fn short_attributes_tell_nothing() {
        let mut body = description(INET6, 10, 5);
        add(&mut body, INFO, &[1; 135]);
        add(&mut body, CGROUP, &[1; 7]);
        add(&mut body, ONLY_V6, &[]);
        let found = Found::decode(&body).expect("the description itself is whole");
        assert_eq!((found.info, found.cgroup, found.only_v6), (None, None, false));
    }

    proptest! {
        #[test]
        fn rubbish_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), family in 0_u8..12) {
            let mut body = bytes;
            if let Some(first) = body.first_mut() {
                *first = family;
            }
            let is_long_enough = body.len() >= DESCRIPTION;
            let is_known = family == INET || family == INET6;
            prop_assert_eq!(Found::decode(&body).is_some(), is_long_enough && is_known);
        }
    }
}
