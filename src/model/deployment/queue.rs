//! Whose turn it is: what comes while something else is under way waits, and the newest wins.

use std::mem;
use std::time::Instant;

use super::transitions::{Commands, supersede};
use super::{Ask, Command, Deployment, Goal, Phase, Standby};
use crate::model::release::ReleaseId;

impl Deployment {
    /// There is a release to bring up; `asks` want it to become active.
    pub(super) fn offered(&mut self, release: ReleaseId, asks: Vec<Ask>, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Vacant { .. } | Phase::Steady { .. } if self.policy.frozen && asks.is_empty() => {
                if !self.held().contains(&release) {
                    self.queue(release, asks, out);
                }
            }
            Phase::Vacant { standby } | Phase::Steady { standby, .. } => {
                let is_warm = *standby == Standby::Warm(release);
                let active = self.active();
                if !is_warm && active.is_none_or(|active| active.release != release) {
                    self.begin(active, release, asks, now, out);
                }
            }
            Phase::Trying { candidate, .. } if candidate.release == release => candidate.asks.extend(asks),
            // It has the traffic: one release never runs as both services.
            Phase::Trying { active: Some(active), .. } if active.release == release => {}
            Phase::Trying { .. } if self.policy.frozen && asks.is_empty() => self.queue(release, asks, out),
            Phase::Trying { active, candidate } => {
                // Somebody named the candidate: that wish is carried out before a mere upload's turn comes.
                if asks.is_empty() && candidate.asks.iter().any(|ask| !ask.goal.is_other()) {
                    self.queue(release, asks, out);
                } else {
                    let active = *active;
                    let (mut kept, passed): (Vec<_>, Vec<_>) =
                        mem::take(&mut candidate.asks).into_iter().partition(|ask| ask.goal.is_other());
                    supersede(passed, release, out);
                    kept.extend(asks);
                    self.begin(active, release, kept, now, out);
                }
            }
            Phase::Switching { to, .. } if *to == release && asks.is_empty() => {}
            Phase::Canary { active, canary: old, .. }
            | Phase::Draining { active, old, .. }
            | Phase::Baking { active, old, .. }
                if asks.is_empty() && (active.release == release || *old == release) => {}
            Phase::Canary { .. }
            | Phase::Switching { .. }
            | Phase::Draining { .. }
            | Phase::Baking { .. } => {
                self.queue(release, asks, out);
            }
        }
    }

    /// Lets a release wait its turn; the newest wins.
    fn queue(&mut self, release: ReleaseId, asks: Vec<Ask>, out: &mut Commands) {
        match &mut self.queued {
            Some((queued, waiting)) if *queued == release => waiting.extend(asks),
            _ => {
                let mut waiting = asks;
                if let Some((_, earlier)) = self.queued.take() {
                    let (kept, passed) = earlier.into_iter().partition(|ask| ask.goal.is_other());
                    supersede(passed, release, out);
                    waiting.splice(0..0, Vec::from_iter::<Vec<Ask>>(kept));
                }
                self.queued = Some((release, waiting));
            }
        }
        out.push(Command::Persist);
    }

    /// Takes the release whose turn it is.
    pub(super) fn next(&mut self, now: Instant, out: &mut Commands) {
        let frozen = self.policy.frozen;
        let Some((release, asks)) = self.queued.take_if(|(_, asks)| !(frozen && asks.is_empty())) else {
            return;
        };
        let asked = asks.iter().any(|ask| !ask.goal.is_other());
        let held = self.held().contains(&release);
        if held && !asks.is_empty() {
            // It is warm or active by now: each ask finds its own way.
            for mut ask in asks {
                if !asked && ask.goal == Goal::Other {
                    ask.goal = Goal::Release(release);
                }
                self.asked(ask, now, out);
            }
        } else if !held {
            self.offered(release, asks, now, out);
        }
    }
}
