//! The transitions: what each event does in each phase.

use std::mem;
use std::time::Instant;

use super::{
    Ask, AskId, Candidate, Command, Deployment, Event, Goal, Live, Notice, Outcome, PATIENCE, Phase, Policy,
    Stage, Standby, Tally, Ticket, Upload, Wait, Way, inactive_of,
};
use crate::model::app::Promote;
use crate::model::health::Failure;
use crate::model::release::ReleaseId;

/// What a transition leads to, gathered while it is worked out.
pub(super) type Commands = Vec<Command>;

impl Deployment {
    /// Takes an event at the time `now` and says what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Commands {
        let mut out = Commands::new();
        match event {
            Event::Offered(release) => self.upload_offered(release, now, &mut out),
            Event::Wanted(release) => self.wanted(release, now, &mut out),
            Event::Upload(upload) => self.upload_changed(upload, now, &mut out),
            Event::Asked(ask) => self.asked(ask, now, &mut out),
            Event::Gone(id) => self.gone(id, &mut out),
            Event::Ready(ticket, answer) => self.ready(ticket, answer, now, &mut out),
            Event::NotReady(ticket, failure) => self.not_ready(ticket, failure, now, &mut out),
            Event::Moved(ticket) => self.moved(ticket, now, &mut out),
            Event::NotMoved(ticket, why) => self.not_moved(ticket, &why, now, &mut out),
            Event::Drained(ticket, tally) => self.drained(ticket, tally, now, &mut out),
            Event::StandbyLost => {
                // Not on disk yet: after a crash in this moment it is still to be brought up again.
                if let Phase::Steady { active, .. }
                | Phase::Canary { active, .. }
                | Phase::Baking { active, .. } = self.phase
                {
                    self.phase = Phase::Steady { active, standby: Standby::Empty };
                } else if matches!(self.phase, Phase::Vacant { standby: Standby::Warm(_) }) {
                    self.phase = Phase::Vacant { standby: Standby::Empty };
                }
            }
            Event::Exited(colour, exit) => self.exited(colour, exit, now, &mut out),
            Event::Unhealthy(live, failure) => self.unhealthy(live, failure, now, &mut out),
            Event::Healthy(live, answer) => {
                if self.active() == Some(live) {
                    out.push(Command::Tell(Notice::Healthy(live, answer)));
                }
            }
            Event::Policy(policy) => self.policy_changed(policy, now, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// A drain takes a changed limit at once, counted from now; a candidate and a bake keep the end they have.
    fn policy_changed(&mut self, policy: Policy, now: Instant, out: &mut Commands) {
        let before = mem::replace(&mut self.policy, policy);
        match &mut self.phase {
            Phase::Draining { active, old, was_active, bake, bad, asks, .. }
                if before.drain != self.policy.drain =>
            {
                let (active, old, was_active, bake) = (*active, *old, *was_active, *bake);
                let (bad, asks) = (bad.take(), mem::take(asks));
                self.drain(active, Left { old, was_active, bad }, bake, asks, now, out);
            }
            Phase::Vacant { .. } | Phase::Steady { .. } if before.frozen && !self.policy.frozen => {
                self.next(now, out);
            }
            _ => {}
        }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// What was refused is mended by it; what is still arriving goes on to arrive.
    fn wanted(&mut self, release: ReleaseId, now: Instant, out: &mut Commands) {
        if matches!(self.upload, Upload::Refused(..)) {
            self.upload = Upload::Dealt;
        }
        self.offered(release, Vec::new(), now, out);
    }

    /// An upload became a release, or is one that is there already.
    fn upload_offered(&mut self, release: ReleaseId, now: Instant, out: &mut Commands) {
        self.upload = Upload::Dealt;
        let is_older = |(queued, asks): &mut (ReleaseId, Vec<Ask>)| *queued != release && asks.is_empty();
        if self.queued.take_if(is_older).is_some() {
            out.push(Command::Persist);
        }
        self.offered(release, Vec::new(), now, out);
        if self.heading_for().is_some_and(|live| live.release == release) {
            // Who waited for this upload has it: the other service is not what was meant.
            for ask in mem::take(&mut self.patient) {
                self.already(ask, out);
            }
        }
        self.settle_patient(now, out);
    }

    /// Brings `release` up in the inactive colour.
    pub(super) fn begin(
        &mut self,
        active: Option<Live>,
        release: ReleaseId,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let ticket = self.ticket();
        let live = Live { colour: inactive_of(active), release };
        let overdue = now + self.policy.deadline + PATIENCE;
        self.phase = Phase::Trying { active, candidate: Candidate { release, ticket, overdue, asks } };
        out.extend([Command::Persist, Command::Tell(Notice::Trying(live)), Command::Try(ticket, live)]);
    }

    fn upload_changed(&mut self, upload: Upload, now: Instant, out: &mut Commands) {
        if let (Upload::Incoming(what), false) = (&upload, self.patient.is_empty()) {
            out.push(Command::Tell(Notice::Waiting(what.clone())));
        }
        self.upload = upload;
        self.settle_patient(now, out);
    }

    /// Asks those again who waited for an upload, once it has been dealt with.
    fn settle_patient(&mut self, now: Instant, out: &mut Commands) {
        if matches!(self.upload, Upload::Incoming(_)) {
            return;
        }
        for ask in mem::take(&mut self.patient) {
            self.asked(ask, now, out);
        }
    }

    /// Asks the warm service once more before traffic goes to it.
    pub(super) fn verify(
        &mut self,
        from: Option<Live>,
        to: ReleaseId,
        way: Way,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let (ticket, overdue) = (self.ticket(), now + PATIENCE);
        self.phase = Phase::Switching { from, to, stage: Stage::Verifying, way, ticket, overdue, asks };
        out.push(Command::Verify(ticket, Live { colour: inactive_of(from), release: to }));
    }

    /// Moves the route: the decision goes to disk first.
    pub(super) fn switch(
        &mut self,
        from: Option<Live>,
        to: ReleaseId,
        way: Way,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let (ticket, overdue) = (self.ticket(), now + PATIENCE);
        self.phase = Phase::Switching { from, to, stage: Stage::Moving, way, ticket, overdue, asks };
        let live = Live { colour: inactive_of(from), release: to };
        out.extend([Command::Persist, Command::PointAt(ticket, live)]);
    }

    fn ready(&mut self, ticket: Ticket, answer: String, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Trying { active, candidate } if candidate.ticket == ticket => {
                let (active, release) = (*active, candidate.release);
                let live = Live { colour: inactive_of(active), release };
                let (preparing, asks): (Vec<_>, Vec<_>) = mem::take(&mut candidate.asks)
                    .into_iter()
                    .partition(|ask| ask.goal == Goal::Ready(release));
                out.push(Command::Tell(Notice::Ready(live, answer)));
                let by_itself = self.policy.promote == Promote::Auto && !self.policy.frozen;
                // Where nothing is active, only those can keep it from traffic who want it no more than ready.
                let stays = asks.is_empty() && (!preparing.is_empty() || (active.is_some() && !by_itself));
                out.extend(preparing.into_iter().map(|ask| done(ask, Outcome::Ready(live))));
                let plan = self.plan_of(&asks);
                // The steps that they wanted may be configured no more.
                let is_unplanned = plan.is_none() && !asks.is_empty() && is_for_canary(&asks);
                match (active, plan) {
                    (None, _) if stays => {
                        self.phase = Phase::Vacant { standby: Standby::Warm(release) };
                        out.push(Command::Persist);
                        self.next(now, out);
                    }
                    (Some(active), _) if stays || is_unplanned => {
                        self.phase = Phase::Steady { active, standby: Standby::Warm(release) };
                        out.push(Command::Persist);
                        asks.into_iter().for_each(|ask| self.asked(ask, now, out));
                        self.next(now, out);
                    }
                    (Some(active), Some(plan)) => self.split(active, release, plan, asks, now, out),
                    (active, _) => self.switch(active, release, way_of(&asks), asks, now, out),
                }
            }
            Phase::Switching { from, to, stage: Stage::Verifying, way, ticket: current, asks, .. }
                if *current == ticket =>
            {
                let (from, to, way, asks) = (*from, *to, way.clone(), mem::take(asks));
                let live = Live { colour: inactive_of(from), release: to };
                out.push(Command::Tell(Notice::Ready(live, answer)));
                match (from, way) {
                    (Some(active), Way::Part(plan)) if is_for_canary(&asks) => {
                        self.split(active, to, plan, asks, now, out);
                    }
                    // Meanwhile somebody wants everything for it.
                    (from, Way::Part(_)) => self.switch(from, to, way_of(&asks), asks, now, out),
                    (from, way) => {
                        if let (Some(bad), Way::Fallen { failure, .. }) = (from, &way) {
                            out.extend([
                                Command::MarkBad(bad.release, failure.clone()),
                                Command::Tell(Notice::KeepsEnding(bad, failure.clone())),
                            ]);
                        }
                        self.switch(from, to, way, asks, now, out);
                    }
                }
            }
            _ => {}
        }
    }

    fn not_ready(&mut self, ticket: Ticket, failure: Failure, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Trying { active, candidate } if candidate.ticket == ticket => {
                let (active, release) = (*active, candidate.release);
                let asks = mem::take(&mut candidate.asks);
                let live = Live { colour: inactive_of(active), release };
                let standby = Standby::Failed(release, failure.clone());
                self.phase = match active {
                    Some(active) => Phase::Steady { active, standby },
                    None => Phase::Vacant { standby },
                };
                out.extend([
                    Command::MarkFailed(release, failure.clone()),
                    Command::Persist,
                    Command::Tell(Notice::Failed(live, failure.clone())),
                ]);
                for ask in asks {
                    out.push(done(ask, self.not_healthy(ask, Some(release), failure.clone())));
                }
                self.next(now, out);
            }
            Phase::Switching { stage: Stage::Verifying, ticket: current, to, asks, .. }
                if *current == ticket =>
            {
                let (to, asks) = (*to, mem::take(asks));
                for ask in asks {
                    out.push(done(ask, self.not_healthy(ask, Some(to), failure.clone())));
                }
                self.stay(now, out);
            }
            _ => {}
        }
    }

    fn moved(&mut self, ticket: Ticket, now: Instant, out: &mut Commands) {
        if matches!(self.phase, Phase::Canary { job: Some((current, _)), .. } if current == ticket) {
            return self.split_done(now, out);
        }
        let Phase::Switching { from, to, stage: Stage::Moving, way, ticket: current, asks, .. } =
            &mut self.phase
        else {
            return;
        };
        if *current != ticket {
            return;
        }
        let (from, way, asks) = (*from, mem::replace(way, Way::Forth), mem::take(asks));
        let active = Live { colour: inactive_of(from), release: *to };
        self.ends.clear();
        out.extend([
            Command::MarkServed(active.release),
            Command::Persist,
            Command::Tell(Notice::Moved { from, to: active }),
        ]);
        let (waiting, answered): (Vec<_>, Vec<_>) =
            asks.into_iter().partition(|ask| ask.wait > Wait::Moved && from.is_some());
        for ask in answered {
            out.push(done(ask, Outcome::Done { active, before: from, tally: None, already: false }));
        }
        match (from, way) {
            (Some(left), way) => self.settle(active, left, way, waiting, now, out),
            (None, _) => {
                self.phase = Phase::Steady { active, standby: Standby::Empty };
                self.next(now, out);
            }
        }
        self.ask_later(now, out);
    }

    /// Asks those again who want back what traffic was moved away from.
    pub(super) fn ask_later(&mut self, now: Instant, out: &mut Commands) {
        for ask in mem::take(&mut self.later) {
            self.asked(ask, now, out);
        }
    }

    pub(super) fn drain(
        &mut self,
        active: Live,
        left: Left,
        bake: Option<Instant>,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let Left { old, was_active, bad } = left;
        let (ticket, colour) = (self.ticket(), active.colour.other());
        let until = self.policy.drain.and_then(|drain| now.checked_add(drain));
        out.push(if bad.is_some() {
            Command::Retire(ticket, colour, until)
        } else {
            Command::Drain(ticket, colour, until)
        });
        self.phase = Phase::Draining { active, old, was_active, ticket, until, bake, bad, asks };
    }

    fn not_moved(&mut self, ticket: Ticket, why: &str, now: Instant, out: &mut Commands) {
        if matches!(self.phase, Phase::Canary { job: Some((current, _)), .. } if current == ticket) {
            return self.not_split(why, now, out);
        }
        let Phase::Switching { from, way, ticket: current, asks, .. } = &mut self.phase else { return };
        if *current != ticket {
            return;
        }
        for ask in mem::take(asks) {
            out.push(done(ask, Outcome::Refused(format!("the route could not be moved: {why}"))));
        }
        if let (Some(failed), Way::Fallen { failure, asks }) = (*from, mem::replace(way, Way::Back(None))) {
            for ask in asks {
                let (failure, why) = (failure.clone(), why.to_owned());
                out.push(done(ask, Outcome::NotRolledBack { failed, failure, why }));
            }
        }
        self.stay(now, out);
    }

    /// Gives a switch up. The connections that the other colour may still have are drained (again).
    fn stay(&mut self, now: Instant, out: &mut Commands) {
        let Phase::Switching { from, to, stage, ref way, .. } = self.phase else { return };
        let bake = if let Way::Back(bake) = way { *bake } else { None };
        // A way back leads to what was active.
        let was_active = matches!(way, Way::Back(_));
        match from {
            Some(from) => {
                self.drain(from, Left { old: to, was_active, bad: None }, bake, Vec::new(), now, out)
            }
            None => {
                let standby = match stage {
                    Stage::Verifying => Standby::Warm(to),
                    Stage::Moving => {
                        Standby::Failed(to, Failure::because("the route could not be moved to it"))
                    }
                };
                self.phase = Phase::Vacant { standby };
                self.next(now, out);
            }
        }
        out.push(Command::Persist);
        self.ask_later(now, out);
    }

    fn tick(&mut self, now: Instant, out: &mut Commands) {
        if self.wake_at().is_none_or(|due| now < due) {
            return;
        }
        match &mut self.phase {
            Phase::Trying { candidate, .. } => {
                let ticket = candidate.ticket;
                self.not_ready(ticket, Failure::because("its start did not come to an end"), now, out);
            }
            Phase::Switching { ticket, stage: Stage::Verifying, .. } => {
                let ticket = *ticket;
                let failure = Failure::because("it did not answer the question whether it is healthy");
                self.not_ready(ticket, failure, now, out);
            }
            Phase::Switching { ticket, .. } => {
                let ticket = *ticket;
                self.not_moved(ticket, "it did not answer in time", now, out);
            }
            Phase::Draining { bake: Some(end), .. } if *end <= now => self.baked_while_draining(out),
            Phase::Draining { ticket, .. } => {
                let ticket = *ticket;
                self.drained(ticket, Tally::default(), now, out);
            }
            Phase::Baking { .. } => self.baked(now, out),
            Phase::Canary { job: Some((ticket, overdue)), .. } if *overdue <= now => {
                let ticket = *ticket;
                self.not_moved(ticket, "it did not answer in time", now, out);
            }
            Phase::Canary { .. } => self.next_step(now, out),
            Phase::Vacant { .. } | Phase::Steady { .. } => {}
        }
    }

    /// Someone went away: what was not begun for him is not begun, what was goes on.
    fn gone(&mut self, id: AskId, out: &mut Commands) {
        for waiting in [&mut self.patient, &mut self.later] {
            let gone = waiting.extract_if(.., |ask| ask.id == id);
            let why = "whoever asked went away before anything was begun";
            out.extend(gone.map(|ask| done(ask, Outcome::Refused(why.into()))));
        }
    }
}

pub(super) fn done(ask: Ask, outcome: Outcome) -> Command {
    Command::Answer(ask.id, outcome)
}

pub(super) fn supersede(asks: Vec<Ask>, by: ReleaseId, out: &mut Commands) {
    out.extend(asks.into_iter().map(|ask| done(ask, Outcome::Superseded(format!("{by} took its place")))));
}

/// What traffic was moved away from.
pub(super) struct Left {
    pub(super) old: ReleaseId,
    /// All of it, and not only a share.
    pub(super) was_active: bool,
    /// Why it is to be stopped, if it is.
    pub(super) bad: Option<Failure>,
}

/// Whether nobody wants more than a share.
pub(super) fn is_for_canary(asks: &[Ask]) -> bool {
    asks.iter().all(|ask| matches!(ask.goal, Goal::Canary(_)))
}

/// Which way those want to go who ask for what is not active: only a rollback is none that has to prove itself.
pub(super) fn way_of(asks: &[Ask]) -> Way {
    if asks.iter().any(|ask| ask.rollback) { Way::Back(None) } else { Way::Forth }
}
