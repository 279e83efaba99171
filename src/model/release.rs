//! Releases, their names, and the catalogue of those an app has.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

/// A release's name: `r17-3f9a2c1`, a counter per app and the head of the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReleaseId {
    /// Counts up from 1 in each app.
    pub number: u32,
    /// The first 28 bits of the digest.
    pub head: u32,
}

impl ReleaseId {
    /// Names the release with that number and digest.
    #[must_use]
    pub const fn new(number: u32, digest: &Digest) -> Self {
        let [a, b, c, d, ..] = digest.0;
        Self { number, head: u32::from_be_bytes([a, b, c, d]) >> 4 }
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("r{}-{:07x}", self.number, self.head))
    }
}

impl FromStr for ReleaseId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, head) = text.strip_prefix('r').and_then(|rest| rest.split_once('-')).ok_or(())?;
        let id = Self {
            number: number.parse().map_err(|_| ())?,
            head: u32::from_str_radix(head, 16).map_err(|_| ())?,
        };
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}
