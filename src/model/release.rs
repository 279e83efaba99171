//! Releases, their names, and the catalogue of those an app has.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use super::app::{Check, ServiceConfig};
use super::health::Failure;
use super::hooks::Hooks;

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
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
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

/// The longest label, in bytes.
const LONGEST_LABEL: usize = 100;

/// What a user calls a release: a git revision or a tag. One line, so that it can be shown anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.len() > LONGEST_LABEL || text.chars().any(char::is_control) {
            return Err(format!("a label is one line of 1 to {LONGEST_LABEL} bytes"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a release runs with: the part of the configuration that needs a restart to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The release binary's path inside the release.
    pub bin: PathBuf,
    /// How the services are run; its ports are chosen.
    pub service: ServiceConfig,
    /// What a probe asks.
    pub check: Check,
    /// What is run at which moment.
    pub hooks: Hooks,
}

/// What became of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has not been active yet, and nothing is known against it.
    Untried,
    /// It has been active; when it last became so.
    Good(SystemTime),
    /// It did not get ready. It is not tried again by itself.
    Failed(Failure),
}

/// An immutable snapshot of what was uploaded, and what it runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// The digest of its files.
    pub artifact: Digest,
    /// The digest of its recipe.
    pub config: Digest,
    /// What it runs with.
    pub recipe: Recipe,
    /// When it was taken.
    pub taken: SystemTime,
    /// How many files it has.
    pub files: u64,
    /// How large they are together, in bytes.
    pub bytes: u64,
    /// What the user called it when it was uploaded last.
    pub label: Option<Label>,
    /// What became of it.
    pub verdict: Verdict,
}

impl Release {
    /// Whether it has been active.
    #[must_use]
    pub const fn served(&self) -> Option<SystemTime> {
        match self.verdict {
            Verdict::Good(when) => Some(when),
            Verdict::Untried | Verdict::Failed(_) => None,
        }
    }
}

/// The releases of one app, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    /// Those that the release store holds.
    pub releases: Vec<Release>,
    /// The number of the newest release there ever was.
    pub last_number: u32,
}

impl Catalogue {
    /// The release of that name.
    #[must_use]
    pub fn get(&self, id: ReleaseId) -> Option<&Release> {
        self.releases.iter().find(|release| release.id == id)
    }

    /// The release that has these files and this recipe.
    #[must_use]
    pub fn same(&self, artifact: Digest, config: Digest) -> Option<&Release> {
        self.releases.iter().rev().find(|release| release.artifact == artifact && release.config == config)
    }

    /// The newest release.
    #[must_use]
    pub fn newest(&self) -> Option<&Release> {
        self.releases.last()
    }

    /// The name that the next release with this digest gets; no other one gets its number.
    pub const fn take_id(&mut self, digest: &Digest) -> ReleaseId {
        self.last_number += 1;
        ReleaseId::new(self.last_number, digest)
    }

    /// Adds a release that the store holds now.
    pub fn add(&mut self, release: Release) {
        self.last_number = self.last_number.max(release.id.number);
        self.releases.push(release);
    }

    /// Writes down what became of a release.
    pub fn judge(&mut self, id: ReleaseId, verdict: Verdict) {
        if let Some(release) = self.releases.iter_mut().find(|release| release.id == id) {
            release.verdict = verdict;
        }
    }

    /// Calls a release something else.
    pub fn label(&mut self, id: ReleaseId, label: Label) {
        if let Some(release) = self.releases.iter_mut().find(|release| release.id == id) {
            release.label = Some(label);
        }
    }

    /// Finds a release by what a user may call it: its whole name, its number (`r17`), or the head of its digest.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&Release> {
        self.releases.iter().rev().find(|release| {
            let name = release.id.to_string();
            name == text
                || name.split_once('-').is_some_and(|(number, head)| {
                    number == text || (text.len() >= 4 && head.starts_with(text))
                })
        })
    }

    /// The release that was active last, `active` itself apart.
    #[must_use]
    pub fn last_good(&self, active: Option<ReleaseId>) -> Option<&Release> {
        self.releases
            .iter()
            .filter(|release| Some(release.id) != active)
            .filter_map(|release| release.served().map(|when| (when, release)))
            .max_by_key(|(when, release)| (*when, release.id))
            .map(|(_, release)| release)
    }

    /// Those that may go so that `keep` good ones, and as many others, are left: never one of `held`,
    /// never the last good one.
    #[must_use]
    pub fn superfluous(&self, keep: usize, held: &[ReleaseId]) -> Vec<ReleaseId> {
        let active = held.first().copied();
        let last_good = self.last_good(active).map(|release| release.id);
        let (mut good, mut others) = (0, 0);
        let mut superfluous = Vec::new();
        for release in self.releases.iter().rev() {
            let count = if release.served().is_some() { &mut good } else { &mut others };
            *count += 1;
            if *count > keep && !held.contains(&release.id) && last_good != Some(release.id) {
                superfluous.push(release.id);
            }
        }
        superfluous
    }

    /// The release was uploaded again: it is the newest now.
    pub fn renew(&mut self, id: ReleaseId, now: SystemTime) {
        if let Some(place) = self.releases.iter().position(|release| release.id == id) {
            let mut release = self.releases.remove(place);
            release.taken = now;
            self.releases.push(release);
        }
    }

    /// Forgets a release.
    pub fn forget(&mut self, id: ReleaseId) {
        self.releases.retain(|release| release.id != id);
    }
}
