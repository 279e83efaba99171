//! What users want, in each phase.

use std::mem;
use std::time::Instant;

use super::transitions::{Commands, done, supersede, way_of};
use super::{
    Ask, Candidate, Command, Deployment, Goal, Live, Notice, Outcome, Phase, Standby, Upload, Wait, Way,
    inactive_of,
};
use crate::model::colour::Colour;
use crate::model::health::Failure;
use crate::model::release::ReleaseId;

impl Deployment {
    pub(super) fn asked(&mut self, ask: Ask, now: Instant, out: &mut Commands) {
        if matches!(self.phase, Phase::Canary { .. }) && self.is_reached_by(ask.goal) {
            return self.end_canary(None, vec![ask], now, out);
        }
        match ask.goal {
            Goal::Other | Goal::Canary(_) => self.asked_for_other(ask, now, out),
            Goal::Colour(colour) if self.heading_for().is_some_and(|live| live.colour == colour) => {
                self.already(ask, out);
            }
            Goal::Colour(colour) => self.asked_for_colour(colour, ask, now, out),
            Goal::Release(release) if self.heading_for().is_some_and(|live| live.release == release) => {
                self.already(ask, out);
            }
            Goal::Release(release) => self.asked_for_release(release, ask, now, out),
            Goal::Ready(release) => self.asked_to_prepare(release, ask, now, out),
        }
    }

    /// Whether what is active is what is wanted.
    fn is_reached_by(&self, goal: Goal) -> bool {
        self.active().is_some_and(|live| match goal {
            Goal::Colour(colour) => live.colour == colour,
            Goal::Release(release) => live.release == release,
            Goal::Other | Goal::Canary(_) | Goal::Ready(_) => false,
        })
    }

    /// What is active, or is about to be because the decision has been taken.
    pub(super) fn heading_for(&self) -> Option<Live> {
        match &self.phase {
            Phase::Switching { from, to, .. } => Some(Live { colour: inactive_of(*from), release: *to }),
            _ => self.active(),
        }
    }

    /// The goal is reached or about to be: answers, or lets `ask` wait with the others.
    pub(super) fn already(&mut self, ask: Ask, out: &mut Commands) {
        match &mut self.phase {
            Phase::Switching { asks, .. } => asks.push(ask),
            Phase::Draining { asks, .. } if ask.wait > Wait::Moved => asks.push(ask),
            Phase::Baking { asks, .. } if ask.wait == Wait::Baked => asks.push(ask),
            _ => {
                if let Some(active) = self.active() {
                    let before = Some(active);
                    out.push(done(ask, Outcome::Done { active, before, tally: None, already: true }));
                }
            }
        }
    }

    fn asked_for_colour(&mut self, colour: Colour, ask: Ask, now: Instant, out: &mut Commands) {
        match &self.phase {
            Phase::Switching { from: Some(_), .. } => self.after_the_move(ask, out),
            _ if self.inactive_colour() == colour => self.asked_for_standby(ask, now, out),
            _ => {
                let why = format!("there is nothing in {colour}: the first release comes up in green");
                out.push(done(ask, Outcome::Refused(why)));
            }
        }
    }

    /// What is wanted is where the traffic is being taken from just now: the way back comes after the way there.
    fn after_the_move(&mut self, ask: Ask, out: &mut Commands) {
        if ask.wait > Wait::Moved {
            self.later.push(ask);
        } else {
            out.push(done(ask, Outcome::Busy("traffic is being moved away from it just now".into())));
        }
    }

    fn asked_for_other(&mut self, ask: Ask, now: Instant, out: &mut Commands) {
        match &self.upload {
            // That is what it is about, and not what comes after it.
            _ if self.canary().is_some() => self.asked_for_whole_or_part(ask, now, out),
            Upload::Incoming(what) if ask.wait > Wait::Moved => {
                out.push(Command::Tell(Notice::Waiting(what.clone())));
                self.patient.push(ask);
            }
            Upload::Incoming(what) => {
                out.push(done(ask, Outcome::Busy(format!("something is being uploaded: {what}"))))
            }
            Upload::Refused(release, failure) => {
                let (release, failure) = (*release, failure.clone());
                out.push(done(ask, self.not_healthy(ask, release, failure)));
            }
            Upload::Dealt => self.asked_for_whole_or_part(ask, now, out),
        }
    }

    fn asked_for_whole_or_part(&mut self, ask: Ask, now: Instant, out: &mut Commands) {
        match ask.goal {
            Goal::Canary(share) => self.asked_for_canary(share, ask, now, out),
            _ => self.asked_for_standby(ask, now, out),
        }
    }

    /// Switches to what the inactive colour holds, once it is ready.
    pub(super) fn asked_for_standby(&mut self, ask: Ask, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Trying { candidate, .. } if ask.wait > Wait::Moved => candidate.asks.push(ask),
            Phase::Trying { active, candidate } => {
                let colour = inactive_of(*active);
                let what = format!("{colour} {} is still coming up", candidate.release);
                out.push(done(ask, Outcome::Busy(what)));
            }
            Phase::Vacant { standby } | Phase::Steady { standby, .. } => match standby {
                Standby::Empty => out.push(done(ask, nothing_to_switch_to())),
                Standby::Failed(release, failure) => {
                    let (release, failure) = (*release, failure.clone());
                    out.push(done(ask, self.not_healthy(ask, Some(release), failure)));
                }
                Standby::Warm(release) => {
                    let release = *release;
                    self.verify(self.active(), release, way_of(&[ask]), vec![ask], now, out);
                }
            },
            Phase::Canary { active, canary, asks, .. } => {
                let (active, canary) = (*active, *canary);
                let mut asks = mem::take(asks);
                asks.push(ask);
                self.switch(Some(active), canary, Way::Forth, asks, now, out);
            }
            Phase::Switching { asks, .. } => asks.push(ask),
            Phase::Draining { old, bad: Some(failure), .. }
                if self.queued.is_none() || ask.goal != Goal::Other =>
            {
                let (old, failure) = (*old, failure.clone());
                out.push(done(ask, self.not_healthy(ask, Some(old), failure)));
            }
            Phase::Draining { active, old, asks, .. } | Phase::Baking { active, old, asks, .. } => {
                match (&mut self.queued, ask.goal) {
                    (Some((_, waiting)), Goal::Other) if ask.wait > Wait::Moved => waiting.push(ask),
                    (Some((release, _)), Goal::Other) => {
                        let what = format!("{release} waits until the last switch has settled");
                        out.push(done(ask, Outcome::Busy(what)));
                    }
                    _ => {
                        let (active, old) = (*active, *old);
                        supersede(mem::take(asks), old, out);
                        let way = self.way_to_old(ask);
                        self.verify(Some(active), old, way, vec![ask], now, out);
                    }
                }
            }
        }
    }

    fn asked_for_release(&mut self, release: ReleaseId, ask: Ask, now: Instant, out: &mut Commands) {
        match &self.phase {
            Phase::Vacant { standby: Standby::Warm(warm) }
            | Phase::Steady { standby: Standby::Warm(warm), .. }
                if *warm == release =>
            {
                self.asked_for_standby(ask, now, out);
            }
            Phase::Trying { candidate: Candidate { release: other, .. }, .. }
            | Phase::Canary { canary: other, .. }
                if *other == release =>
            {
                self.asked_for_standby(ask, now, out);
            }
            Phase::Draining { old, .. } | Phase::Baking { old, .. } if *old == release => {
                self.asked_for_standby(ask, now, out);
            }
            Phase::Switching { from: Some(from), .. } if from.release == release => {
                self.after_the_move(ask, out);
            }
            Phase::Canary { .. } => out.push(done(ask, after_the_canary())),
            _ if ask.wait > Wait::Moved => self.offered(release, vec![ask], now, out),
            _ => {
                let what = format!("{release} has to be started first, which --no-wait does not wait for");
                out.push(done(ask, Outcome::Busy(what)));
                self.offered(release, Vec::new(), now, out);
            }
        }
    }

    /// No traffic moves for it: the release is to be ready, where it is not active anyway.
    fn asked_to_prepare(&mut self, release: ReleaseId, ask: Ask, now: Instant, out: &mut Commands) {
        let colour = self.inactive_colour();
        let ready = match &self.phase {
            _ if self.active().is_some_and(|live| live.release == release) => self.active(),
            Phase::Vacant { standby: Standby::Warm(warm) }
            | Phase::Steady { standby: Standby::Warm(warm), .. }
            | Phase::Canary { canary: warm, .. }
            | Phase::Draining { old: warm, bad: None, .. }
            | Phase::Baking { old: warm, .. }
                if *warm == release =>
            {
                Some(Live { colour, release })
            }
            _ => None,
        };
        match ready {
            Some(live) => out.push(done(ask, Outcome::Ready(live))),
            None if self.canary().is_some() => out.push(done(ask, after_the_canary())),
            None if ask.wait > Wait::Moved => self.offered(release, vec![ask], now, out),
            None => {
                out.push(done(ask, Outcome::Busy(format!("{release} has to be started first"))));
                self.offered(release, Vec::new(), now, out);
            }
        }
    }

    /// Which way leads to what is drained, or was: what had only a share has to prove itself.
    fn way_to_old(&self, ask: Ask) -> Way {
        match &self.phase {
            Phase::Draining { was_active: false, .. } => way_of(&[ask]),
            _ => Way::Back(self.bake_until()),
        }
    }

    /// Until when what is active has to prove itself.
    const fn bake_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Draining { bake, .. } => *bake,
            Phase::Baking { until, .. } => Some(*until),
            _ => None,
        }
    }

    pub(super) fn not_healthy(&self, ask: Ask, release: Option<ReleaseId>, failure: Failure) -> Outcome {
        let colour = release.map(|_| self.inactive_colour());
        Outcome::NotHealthy { release, colour, failure, rollback: ask.rollback, active: self.active() }
    }
}

/// It may last as long as users want: nobody is to wait for that.
fn after_the_canary() -> Outcome {
    Outcome::Busy("there is a canary: first give it all clients (dorc switch) or none (dorc rollback)".into())
}

fn nothing_to_switch_to() -> Outcome {
    Outcome::Refused("there is nothing to switch to: upload a release first".into())
}
