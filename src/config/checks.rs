//! What single values can't tell: whether those of one app go together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::problem::Wrong;
use super::section::Section;
use crate::model::app::{App, PlaneChoice};
use crate::model::colour::{ByColour, Colour};

/// Whether a connection to one of them could be meant for the other.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && covers(a.ip(), b.ip())
}

/// `0.0.0.0` takes every IPv4 address, and `[::]` every address there is.
fn covers(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    let takes = |wide: IpAddr, other: IpAddr| match wide {
        IpAddr::V4(address) => address.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(address) => address.is_unspecified(),
    };
    a == b || takes(a, b) || takes(b, a)
}

/// Where a service of that port is reached.
pub(super) fn service_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// No two listen addresses of one app take each other's connections.
pub(super) fn listen(section: &Section<'_, '_>, key: &str, addresses: &[SocketAddr]) {
    for (index, address) in addresses.iter().enumerate() {
        if let Some(earlier) = addresses[..index].iter().find(|earlier| overlap(**earlier, *address)) {
            let message = if earlier == address {
                format!("{address} is given twice")
            } else {
                format!("{earlier} and {address} take the same connections")
            };
            section.report(key, Wrong::new(message, "leave one of them out"));
        }
    }
}

/// The services' ports are two, and neither of them is where clients come in.
pub(super) fn ports(section: &Section<'_, '_>, key: &str, app: &App) {
    let Some(ports) = app.service.ports else { return };
    if ports.blue == ports.green {
        section.report(
            key,
            Wrong::new(
                format!("blue and green both have port {}", ports.blue),
                "both run at the same time, so give them two",
            ),
        );
    }
    for colour in Colour::BOTH {
        let service = service_address(ports[colour]);
        if let Some(listen) = app.listen.iter().find(|listen| overlap(**listen, service)) {
            section.report(
                key,
                Wrong::new(
                    format!("{colour} has port {}, where the app itself listens ({listen})", ports[colour]),
                    "clients come in there, so give the service another one",
                ),
            );
        }
    }
}

/// The services' folders are two, and no upload lands in them.
pub(super) fn working_dir(section: &Section<'_, '_>, key: &str, app: &App) {
    let Some(ByColour { blue, green }) = &app.service.working_dir else { return };
    if blue == green {
        section.report(
            key,
            Wrong::new(
                format!("blue and green both run in {}", blue.display()),
                "a release is copied there while the other one runs, so give them two",
            ),
        );
    }
    let uploads = &app.release_dir;
    let clash = [blue, green].into_iter().find(|dir| dir.starts_with(uploads) || uploads.starts_with(dir));
    if let Some(dir) = clash.filter(|_| !uploads.as_os_str().is_empty()) {
        section.report(
            key,
            Wrong::new(
                format!("{} and release_dir ({}) are one inside the other", dir.display(), uploads.display()),
                "a copy of a release must not look like an upload, so keep them apart",
            ),
        );
    }
}

/// Only a plane that passes the bytes on can put something in front of them.
pub(super) fn proxy_protocol(section: &Section<'_, '_>, key: &str, app: &App) {
    if app.service.proxy_protocol.is_some() && app.plane == PlaneChoice::Kernel {
        let message = "on the kernel plane clients reach the service directly, with their own addresses";
        section.report(key, Wrong::new(message, "leave it out, or write plane = \"tcp\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_take_what_they_cover() {
        let clash = |a: &str, b: &str| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(a, b), overlap(b, a));
            overlap(a, b)
        };
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("[::]:80", "127.0.0.1:80"));
        assert!(clash("[::]:80", "0.0.0.0:80"));
        assert!(clash("[::]:80", "[::1]:80"));
        assert!(clash("[::ffff:127.0.0.1]:80", "127.0.0.1:80"));
        assert!(!clash("0.0.0.0:80", "[::1]:80"));
        assert!(!clash("0.0.0.0:80", "0.0.0.0:81"));
        assert!(!clash("192.0.2.1:80", "127.0.0.1:80"));
    }
}
