//! Programs of an app's own that are run once, at a moment of a deployment.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The moment at which a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before a release that was never active is started. If it fails, so does the release.
    Prepare,
    /// When such a release is healthy, before it can get traffic. If it fails, so does the release.
    Verify,
    /// When a release has got the traffic.
    Switched,
    /// The same; if it fails while the release bakes, the traffic goes back.
    Bake,
    /// When a release has failed.
    Failed,
}

impl Hook {
    /// All of them, in the order of a deployment.
    pub const ALL: [Self; 5] = [Self::Prepare, Self::Verify, Self::Switched, Self::Bake, Self::Failed];

    /// Its name, as it stands in app files and in the names of units.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Verify => "verify",
            Self::Switched => "switched",
            Self::Bake => "bake",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The hooks of an app. All of it is part of a release's configuration digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// What is run when; words as in `ServiceConfig::start`.
    pub commands: BTreeMap<Hook, Vec<String>>,
    /// How long each may take.
    pub deadline: Duration,
}

impl Hooks {
    /// How long those may take together that a candidate waits for.
    #[must_use]
    pub fn before_traffic(&self) -> Duration {
        let waited_for = [Hook::Prepare, Hook::Verify].iter().filter(|hook| self.commands.contains_key(hook));
        waited_for.map(|_| self.deadline).sum()
    }
}
