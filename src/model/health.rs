//! What health means: the answers of probes, the gate that counts them, and the reasons of a failure.

use std::fmt;
use std::time::Duration;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether it counts as a success.
    pub healthy: bool,
    /// What was asked and answered, for people: `GET /healthz 503 in 2 ms: "no database"`.
    pub answer: String,
}

/// How a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// For people: `exit status 3`, `killed by SIGSEGV`, `systemd: start-limit-hit`.
    pub how: String,
    /// How long it had been up; `None` where the supervisor does not know.
    pub after: Option<Duration>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "{}, {:.1} s after its start", self.how, after.as_secs_f64()),
            None => f.write_str(&self.how),
        }
    }
}

/// Why a release did not become ready, or an upload no release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One sentence without a full stop: `it exited with exit status 3, 0.2 s after its start`.
    pub reason: String,
    /// The last health answer, where one was asked.
    pub last_probe: Option<String>,
    /// The service's last lines, oldest first.
    pub log: Vec<String>,
}

impl Failure {
    /// A failure of which nothing but the reason is known.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), last_probe: None, log: Vec::new() }
    }
}

/// Counts probes until enough of them in a row succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    needed: u32,
    in_a_row: u32,
}

impl Gate {
    /// A gate that opens after `needed` successes in a row, at least one.
    #[must_use]
    pub fn new(needed: u32) -> Self {
        Self { needed: needed.max(1), in_a_row: 0 }
    }

    /// Counts one probe; true once the gate is open.
    pub fn count(&mut self, probe: &Probe) -> bool {
        self.in_a_row = if probe.healthy { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row >= self.needed
    }
}
