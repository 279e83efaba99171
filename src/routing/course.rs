//! Where the clients of an app go: all to one service, or a share of them to the other one.

use std::net::IpAddr;

use super::Target;
use crate::model::share::Share;

/// A share of the clients that goes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Where it goes.
    pub target: Target,
    /// How much of them.
    pub share: Share,
}

impl Canary {
    /// Whether it gets this client. That depends on nothing but the client's address and the share: it is the same on
    /// every plane and after a restart, and whom it has it keeps while its share grows.
    #[must_use]
    pub fn takes(&self, client: IpAddr) -> bool {
        hash(client) < threshold(self.share)
    }
}

/// Where the clients of an app go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    /// All, or those whom the canary does not get; `None`: they are held.
    pub target: Option<Target>,
    /// Who else gets some of them.
    pub canary: Option<Canary>,
    /// Nobody goes anywhere for now: they are all held.
    pub held: bool,
}

impl Course {
    /// The same with another target. There is no canary in the colour that has everything, and none beside nothing.
    #[must_use]
    pub fn point_at(self, target: Option<Target>) -> Self {
        let is_beside = |canary: &Canary| target.is_some_and(|target| target.colour != canary.target.colour);
        Self { target, canary: self.canary.filter(is_beside), ..self }
    }

    /// The same with another canary, or none. Before there is a target it waits for one.
    #[must_use]
    pub fn split(self, canary: Option<Canary>) -> Self {
        let is_beside =
            |canary: &Canary| self.target.is_none_or(|target| target.colour != canary.target.colour);
        Self { canary: canary.filter(is_beside), ..self }
    }

    /// The same, but nobody goes there for now; or they do again.
    #[must_use]
    pub fn hold(self, held: bool) -> Self {
        Self { held, ..self }
    }

    /// Where this client goes; `None`: it is held.
    #[must_use]
    pub fn of(self, client: IpAddr) -> Option<Target> {
        let target = self.target.filter(|_| !self.held)?;
        Some(self.canary.filter(|canary| canary.takes(client)).map_or(target, |canary| canary.target))
    }

    /// Whether somebody is to be told of each client, for which dorc has to be in the path.
    #[must_use]
    pub fn has_headers(self) -> bool {
        self.targets().any(|target| target.proxy_protocol.is_some())
    }

    /// All whom it sends somebody to.
    pub fn targets(self) -> impl Iterator<Item = Target> {
        self.target.into_iter().chain(self.target.and(self.canary).map(|canary| canary.target))
    }
}

/// What [`mix`] multiplies with.
pub(super) const FACTORS: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];
/// By how many bits it shifts.
pub(super) const SHIFTS: [u32; 3] = [16, 13, 16];

/// The hash of a client by which a share is told. The program of the kernel plane works out the same, step by step: so it
/// takes words as they are in memory, and IPv4 as IPv6 with zeros before it, of which nothing is left.
fn hash(client: IpAddr) -> u32 {
    let words = match client.to_canonical() {
        IpAddr::V4(ip) => [0, 0, 0, u32::from_ne_bytes(ip.octets())],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let (words, _) = octets.as_chunks::<4>();
            [0, 1, 2, 3].map(|place| u32::from_ne_bytes(words[place]))
        }
    };
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

/// Spreads neighbours over the whole range (the last step of MurmurHash3); 0 stays 0, and no two get the same.
const fn mix(word: u32) -> u32 {
    let word = (word ^ word >> SHIFTS[0]).wrapping_mul(FACTORS[0]);
    let word = (word ^ word >> SHIFTS[1]).wrapping_mul(FACTORS[1]);
    word ^ word >> SHIFTS[2]
}

/// The canary gets whose hash is below it; never 0.
pub(super) fn threshold(share: Share) -> u32 {
    let all = u64::from(Share::WHOLE);
    // A share is less than the whole, so it fits.
    u32::try_from((u64::from(share.parts()) << 32).div_ceil(all)).unwrap_or(u32::MAX)
}

/// The share that has this threshold; `None` for 0.
pub(super) fn share_of(threshold: u32) -> Option<Share> {
    let parts = (u64::from(threshold) * u64::from(Share::WHOLE)) >> 32;
    Share::new(u16::try_from(parts).ok()?)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;
    use crate::model::colour::Colour;

    const CLIENTS: u32 = 10_000;

    fn target(colour: Colour) -> Target {
        Target::new(colour, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }

    fn canary(parts: u16) -> Canary {
        Canary { target: target(Colour::Blue), share: Share::new(parts).unwrap() }
    }

    /// Clients as they come: neighbours, networks, both versions of IP.
    fn crowds() -> [Vec<IpAddr>; 4] {
        let four =
            |first: u32, step: u32| (0..CLIENTS).map(|n| Ipv4Addr::from(first + n * step).into()).collect();
        let six = |shift: u32| {
            let first = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
            (0..CLIENTS).map(|n| Ipv6Addr::from(first + (u128::from(n) << shift)).into()).collect()
        };
        [four(0x7f00_0001, 1), four(0x0a00_0001, 256), six(0), six(64)]
    }

    #[test]
    fn a_canary_gets_its_share() {
        for clients in crowds() {
            for (parts, least, most) in
                [(1000, 900, 1100), (5000, 4850, 5150), (100, 70, 130), (9999, 9990, 10_000)]
            {
                let count = clients.iter().filter(|client| canary(parts).takes(**client)).count();
                assert!((least..=most).contains(&count), "{parts}: {count} of those from {}", clients[0]);
            }
        }
    }

    #[test]
    fn whom_it_has_it_keeps_while_it_grows() {
        for client in crowds().into_iter().flatten().step_by(7) {
            let sides = [1, 500, 2500, 9999].map(|parts| canary(parts).takes(client));
            assert!(sides.is_sorted(), "{client}: {sides:?}");
        }
    }

    #[test]
    fn ipv4_within_ipv6_is_ipv4() {
        for n in 0..CLIENTS {
            let client = Ipv4Addr::from(0x0a00_0001 + n);
            assert_eq!(hash(client.into()), hash(client.to_ipv6_mapped().into()));
        }
    }

    #[test]
    fn a_share_is_known_by_its_threshold() {
        for share in (1..Share::WHOLE).filter_map(Share::new) {
            assert_eq!(share_of(threshold(share)), Some(share));
        }
        assert_eq!(share_of(0), None);
    }

    #[test]
    fn a_canary_is_beside_the_target() {
        let (green, blue) = (target(Colour::Green), target(Colour::Blue));
        let beside = Course::default().split(Some(canary(1))).point_at(Some(green));
        assert_eq!(beside, Course { target: Some(green), canary: Some(canary(1)), held: false });
        assert_eq!(beside.point_at(Some(green)), beside);
        assert_eq!(beside.point_at(Some(blue)), Course { target: Some(blue), ..Course::default() });
        assert_eq!(beside.point_at(None), Course::default());
        assert_eq!(Course::default().point_at(Some(blue)).split(Some(canary(1))).canary, None);
        assert_eq!(beside.targets().collect::<Vec<_>>(), [green, blue]);
    }
}
