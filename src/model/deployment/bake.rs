//! After a switch: the old connections finish, and the new service proves itself or traffic goes back.

use std::mem;
use std::time::{Duration, Instant};

use super::transitions::{Commands, Left, done};
use super::{Ask, Command, Deployment, Live, Notice, Outcome, Phase, Standby, Tally, Ticket, Wait, Way};
use crate::model::colour::Colour;
use crate::model::health::{Exit, Failure};

/// A service that ends so often within such a time keeps ending.
const ENDS: usize = 3;
const WITHIN: Duration = Duration::from_secs(60);

impl Deployment {
    /// Whether what gets traffic has to prove itself at all.
    pub(super) const fn bakes(&self) -> bool {
        !self.policy.bake.is_zero()
    }

    /// Traffic has moved away from `left`.
    pub(super) fn settle(
        &mut self,
        active: Live,
        left: Live,
        way: Way,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let old = left.release;
        match way {
            Way::Forth | Way::Part(_) => {
                let bake = self.bakes().then(|| now + self.policy.bake);
                self.drain(active, Left { old, was_active: true, bad: None }, bake, asks, now, out);
            }
            Way::Back(_) => {
                self.drain(active, Left { old, was_active: true, bad: None }, None, asks, now, out)
            }
            Way::Fallen { failure, asks: disappointed } => {
                for ask in disappointed {
                    let failure = failure.clone();
                    out.push(done(ask, Outcome::RolledBack { failed: left, failure, active }));
                }
                self.drain(active, Left { old, was_active: true, bad: Some(failure) }, None, asks, now, out);
            }
        }
        // That it bakes, or why what was left is bad.
        out.push(Command::Persist);
    }

    pub(super) fn drained(&mut self, ticket: Ticket, tally: Tally, now: Instant, out: &mut Commands) {
        let Phase::Draining { active, old, was_active, ticket: current, bake, bad, asks, .. } =
            &mut self.phase
        else {
            return;
        };
        if *current != ticket {
            return;
        }
        let (active, old, was_active, bake) = (*active, *old, *was_active, *bake);
        let (bad, asks) = (bad.take(), mem::take(asks));
        out.push(Command::Tell(Notice::Settled(tally)));
        let Some(until) = bake else {
            let standby = bad.map_or(Standby::Warm(old), |failure| Standby::Failed(old, failure));
            self.phase = Phase::Steady { active, standby };
            let before = if was_active { active.beside(old) } else { active };
            answer(asks, active, before, tally, out);
            return self.next(now, out);
        };
        let (waiting, answered): (Vec<_>, Vec<_>) = asks.into_iter().partition(|ask| ask.wait == Wait::Baked);
        answer(answered, active, active.beside(old), tally, out);
        out.push(Command::Tell(Notice::Baking(active, until.saturating_duration_since(now))));
        self.phase = Phase::Baking { active, old, until, tally, asks: waiting };
    }

    /// The old connections take longer than the bake did.
    pub(super) fn baked_while_draining(&mut self, out: &mut Commands) {
        if let Phase::Draining { active, bake, .. } = &mut self.phase {
            *bake = None;
            let active = *active;
            out.extend([Command::Persist, Command::Tell(Notice::Baked(active))]);
        }
    }

    pub(super) fn baked(&mut self, now: Instant, out: &mut Commands) {
        let Phase::Baking { active, old, tally, asks, .. } = &mut self.phase else { return };
        let (active, old, tally, asks) = (*active, *old, *tally, mem::take(asks));
        self.phase = Phase::Steady { active, standby: Standby::Warm(old) };
        out.extend([Command::Persist, Command::Tell(Notice::Baked(active))]);
        answer(asks, active, active.beside(old), tally, out);
        self.next(now, out);
    }

    pub(super) fn exited(&mut self, colour: Colour, exit: Exit, now: Instant, out: &mut Commands) {
        if self.canary().is_some_and(|(canary, _)| canary.colour == colour) {
            let failure = Failure::because(format!("it ended: {exit}"));
            return self.end_canary(Some(failure), Vec::new(), now, out);
        }
        if let Phase::Steady { active, standby: Standby::Warm(warm) } = self.phase
            && active.colour != colour
        {
            return out.push(Command::Tell(Notice::Exited(active.beside(warm), exit)));
        }
        let Some(active) = self.active().filter(|active| active.colour == colour) else { return };
        if self.is_baking() {
            return self.fall_back(Failure::because(format!("it ended: {exit}")), now, out);
        }
        out.push(Command::Tell(Notice::Exited(active, exit.clone())));
        let keeps_ending = self.keeps_ending(now);
        if let Phase::Steady { standby: Standby::Warm(warm), .. } = self.phase
            && keeps_ending
            && self.policy.failover
        {
            let failure = Failure::because(format!("it keeps ending: {exit}"));
            // That the other one was ready may be long ago.
            self.verify(Some(active), warm, Way::Fallen { failure, asks: Vec::new() }, Vec::new(), now, out);
        }
    }

    /// Counts that the active service ended; whether that happened too often.
    fn keeps_ending(&mut self, now: Instant) -> bool {
        self.ends.retain(|end| now.saturating_duration_since(*end) < WITHIN);
        self.ends.push(now);
        self.ends.len() >= ENDS
    }

    pub(super) fn unhealthy(&mut self, live: Live, failure: Failure, now: Instant, out: &mut Commands) {
        if self.canary().is_some_and(|(canary, _)| canary == live) {
            return self.end_canary(Some(failure), Vec::new(), now, out);
        }
        if self.active() != Some(live) {
            return;
        }
        if self.is_baking() {
            self.fall_back(failure, now, out);
        } else {
            out.push(Command::Tell(Notice::Unhealthy(live, failure)));
        }
    }

    /// What got the traffic is bad: the route goes back to what is still warm.
    fn fall_back(&mut self, failure: Failure, now: Instant, out: &mut Commands) {
        let (Phase::Draining { active, old, asks, .. } | Phase::Baking { active, old, asks, .. }) =
            &mut self.phase
        else {
            return;
        };
        let (bad, old, asks) = (*active, *old, mem::take(asks));
        out.extend([
            Command::MarkBad(bad.release, failure.clone()),
            Command::Tell(Notice::Bad(bad, failure.clone())),
        ]);
        self.switch(Some(bad), old, Way::Fallen { failure, asks }, Vec::new(), now, out);
    }
}

/// Answers those who waited until no connection is left on the colour that is not active.
fn answer(asks: Vec<Ask>, active: Live, before: Live, tally: Tally, out: &mut Commands) {
    for ask in asks {
        let before = Some(before);
        out.push(done(ask, Outcome::Done { active, before, tally: Some(tally), already: false }));
    }
}
