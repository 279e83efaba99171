//! The canary: a share of the clients is sent to the other service before all are.

use std::mem;
use std::time::Instant;

use super::transitions::{Commands, Left, done, is_for_canary};
use super::{Ask, Command, Deployment, Goal, Live, Notice, Outcome, PATIENCE, Phase, Standby, Wait, Way};
use crate::model::health::Failure;
use crate::model::release::ReleaseId;
use crate::model::share::{Plan, Share};

impl Deployment {
    /// How a canary goes on that is wanted like this.
    pub(super) fn plan(&self, share: Option<Share>) -> Option<Plan> {
        share.map(Plan::of).or_else(|| Plan::by(&self.policy.canary))
    }

    /// The same for all of `asks`; `None`: somebody wants everything for it. Nobody asked: as it is configured.
    pub(super) fn plan_of(&self, asks: &[Ask]) -> Option<Plan> {
        match asks.last().map(|ask| ask.goal) {
            None => self.plan(None),
            Some(Goal::Canary(share)) if is_for_canary(asks) => self.plan(share),
            Some(_) => None,
        }
    }

    pub(super) fn asked_for_canary(
        &mut self,
        share: Option<Share>,
        ask: Ask,
        now: Instant,
        out: &mut Commands,
    ) {
        let Some(plan) = self.plan(share) else {
            let why = "no steps are configured: name a share, as --canary 10%, or set [switch] canary";
            return out.push(done(ask, Outcome::Refused(why.into())));
        };
        match &mut self.phase {
            Phase::Steady { active, standby: Standby::Warm(warm) } => {
                let (active, warm) = (*active, *warm);
                self.verify(Some(active), warm, Way::Part(plan), vec![ask], now, out);
            }
            Phase::Canary { active, canary, asks, .. } => {
                let (active, canary, mut asks) = (*active, *canary, mem::take(asks));
                asks.push(ask);
                self.split(active, canary, plan, asks, now, out);
            }
            Phase::Trying { active: Some(_), candidate } if ask.wait > Wait::Moved => {
                candidate.asks.push(ask)
            }
            Phase::Switching { .. }
            | Phase::Draining { .. }
            | Phase::Baking { .. }
            | Phase::Trying { .. } => {
                let why = "something else is under way, see: dorc status";
                out.push(done(ask, Outcome::Busy(why.into())));
            }
            Phase::Vacant { .. } | Phase::Steady { .. } => {
                // What is there to say is the same as for a whole switch.
                self.asked_for_standby(Ask { goal: Goal::Other, ..ask }, now, out);
            }
        }
    }

    /// Sets the share of the canary.
    pub(super) fn split(
        &mut self,
        active: Live,
        canary: ReleaseId,
        plan: Plan,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let (ticket, share) = (self.ticket(), plan.share);
        let until = plan.time.map(|time| now + time);
        let job = Some((ticket, now + PATIENCE));
        self.phase = Phase::Canary { active, canary, plan, until, job, asks };
        let live = active.beside(canary);
        out.extend([Command::Persist, Command::Split(ticket, live, share)]);
    }

    /// The share is set.
    pub(super) fn split_done(&mut self, now: Instant, out: &mut Commands) {
        let Phase::Canary { active, canary, plan, job, asks, .. } = &mut self.phase else { return };
        *job = None;
        let (active, share, asks) = (*active, plan.share, mem::take(asks));
        let canary = active.beside(*canary);
        let by = asks.last().map(|ask| ask.id);
        out.push(Command::Tell(Notice::Canary { canary, share, active, by }));
        out.extend(asks.into_iter().map(|ask| done(ask, Outcome::Canary { canary, share, active })));
        self.ask_later(now, out);
    }

    /// The share could not be set: the canary is over.
    pub(super) fn not_split(&mut self, why: &str, now: Instant, out: &mut Commands) {
        let Phase::Canary { asks, .. } = &mut self.phase else { return };
        for ask in mem::take(asks) {
            out.push(done(ask, Outcome::Refused(format!("the clients could not be split: {why}"))));
        }
        self.end_canary(None, Vec::new(), now, out);
    }

    /// The next step is due; after the last one the canary gets everything.
    pub(super) fn next_step(&mut self, now: Instant, out: &mut Commands) {
        let Phase::Canary { active, canary, plan, asks, .. } = &mut self.phase else { return };
        let (active, canary, asks) = (*active, *canary, mem::take(asks));
        match Plan::by(&plan.rest) {
            Some(plan) => self.split(active, canary, plan, asks, now, out),
            None => self.switch(Some(active), canary, Way::Forth, asks, now, out),
        }
    }

    /// All clients go to what is active: because `asks` want that, or because the canary is `bad`.
    pub(super) fn end_canary(
        &mut self,
        bad: Option<Failure>,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let Phase::Canary { active, canary, asks: waiting, .. } = &mut self.phase else { return };
        let (active, old, waiting) = (*active, *canary, mem::take(waiting));
        let canary = active.beside(old);
        for ask in waiting {
            let outcome = match bad.clone() {
                Some(failure) => Outcome::RolledBack { failed: canary, failure, active },
                None => Outcome::Superseded("the canary was ended".into()),
            };
            out.push(done(ask, outcome));
        }
        out.extend(bad.clone().map(|failure| Command::MarkBad(old, failure)));
        let by = asks.first().map(|ask| ask.id);
        out.extend([
            Command::Persist,
            Command::Tell(Notice::CanaryEnded { canary, active, bad: bad.clone(), by }),
        ]);
        let (waiting, answered): (Vec<_>, Vec<_>) = asks.into_iter().partition(|ask| ask.wait > Wait::Moved);
        self.drain(active, Left { old, was_active: false, bad }, None, waiting, now, out);
        for ask in answered {
            let before = Some(active);
            out.push(done(ask, Outcome::Done { active, before, tally: None, already: false }));
        }
        self.ask_later(now, out);
    }
}
