//! The PROXY protocol: the header in front of a connection that says who its client is.
//!
//! The protocol: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, SocketAddr};

/// The beginning of a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and that the connection was made for somebody else.
const PROXY: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    /// What a service has to be told first about a connection from `client` to `listen`.
    #[must_use]
    pub fn header(self, client: SocketAddr, listen: SocketAddr) -> Vec<u8> {
        let (from, to) = match (client.ip().to_canonical(), listen.ip().to_canonical()) {
            both @ (IpAddr::V4(_), IpAddr::V4(_)) => both,
            (from, to) => (widened(from), widened(to)),
        };
        let ports = [client.port(), listen.port()];
        match self {
            Self::V1 => line(from, to, ports).into_bytes(),
            Self::V2 => block(from, to, ports),
        }
    }
}

fn widened(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn line(from: IpAddr, to: IpAddr, [from_port, to_port]: [u16; 2]) -> String {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
}

fn block(from: IpAddr, to: IpAddr, ports: [u16; 2]) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = ports.map(u16::to_be_bytes).concat();
    let addresses = [octets(from), octets(to), ports].concat();
    let family = if from.is_ipv4() { TCP4 } else { TCP6 };
    // 12 or 36 bytes.
    let length = (addresses.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[PROXY, family], &length, &addresses].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: ProxyProtocol, client: &str, listen: &str) -> Vec<u8> {
        version.header(client.parse().unwrap(), listen.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |client, listen| String::from_utf8(header(ProxyProtocol::V1, client, listen)).unwrap();
        assert_eq!(
            line("192.168.0.1:56324", "192.168.0.11:443"),
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        assert_eq!(line("[2001:db8::1]:5", "[::1]:80"), "PROXY TCP6 2001:db8::1 ::1 5 80\r\n");
    }

    #[test]
    fn version_2_is_a_block() {
        let four = header(ProxyProtocol::V2, "192.0.2.1:258", "127.0.0.1:80");
        assert_eq!(four, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x7f\0\0\x01\x01\x02\0\x50");
        let six = header(ProxyProtocol::V2, "[2001:db8::1]:1", "[::1]:80");
        assert_eq!((six.len(), &six[12..16]), (16 + 36, &b"\x21\x21\0\x24"[..]));
    }

    #[test]
    fn ipv4_by_way_of_an_ipv6_socket_is_ipv4() {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            assert_eq!(
                header(version, "[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:80"),
                header(version, "192.0.2.1:1", "192.0.2.2:80")
            );
        }
    }
}
