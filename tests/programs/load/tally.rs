//! What was counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The count of all requests of a run.
pub struct Tally {
    clients: usize,
    warm: usize,
    retried: u64,
    reopened: u64,
    refused: u64,
    reasons: BTreeMap<String, u64>,
    bodies: BTreeMap<String, u64>,
    /// In microseconds, one for each answer.
    latencies: Vec<u32>,
}

impl Tally {
    pub fn new(clients: usize) -> Tally {
        Tally {
            clients,
            warm: 0,
            retried: 0,
            reopened: 0,
            refused: 0,
            reasons: BTreeMap::new(),
            bodies: BTreeMap::new(),
            latencies: Vec::new(),
        }
    }

    /// A client had its first answer.
    #[expect(clippy::print_stderr, reason = "this is what tests wait for")]
    pub fn one_more_is_warm(&mut self) {
        self.warm += 1;
        if self.warm == self.clients {
            eprintln!("warm");
        }
    }

    /// A whole, right answer.
    pub fn answered(&mut self, body: String, after: Duration) {
        *self.bodies.entry(body).or_default() += 1;
        self.latencies.push(u32::try_from(after.as_micros()).unwrap_or(u32::MAX));
    }

    /// A request without one.
    pub fn failed_because(&mut self, reason: String, refused: bool) {
        self.refused += u64::from(refused);
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// A kept connection was closed before the request that was sent on it was answered.
    pub fn retried(&mut self) {
        self.retried += 1;
    }

    /// A kept connection was found closed before a request was sent on it.
    pub fn reopened(&mut self) {
        self.reopened += 1;
    }

    pub fn ok(&self) -> usize {
        self.latencies.len()
    }

    pub fn failed(&self) -> u64 {
        self.reasons.values().sum()
    }

    pub fn json(&self) -> serde_json::Value {
        let [p50, p99, max] = self.latencies();
        serde_json::json!({
            "sent": self.ok() as u64 + self.failed(), "ok": self.ok(), "failed": self.failed(),
            "refused": self.refused, "retried": self.retried, "reopened": self.reopened,
            "reasons": self.reasons, "bodies": self.bodies,
            "latency_us": { "p50": p50, "p99": p99, "max": max },
        })
    }

    fn latencies(&self) -> [u32; 3] {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
        [50, 99, 100].map(|share| at(share).copied().unwrap_or_default())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = self.latencies();
        writeln!(f, "{} answered, {} failed ({} refused)", self.ok(), self.failed(), self.refused)?;
        writeln!(f, "{} retried and {} reopened on kept connections", self.retried, self.reopened)?;
        writeln!(f, "µs: {p50} median, {p99} p99, {max} max")?;
        self.bodies.iter().try_for_each(|(body, count)| writeln!(f, "  {count:>9} × {body}"))?;
        self.reasons.iter().try_for_each(|(reason, count)| writeln!(f, "  {count:>9} failed: {reason}"))
    }
}
