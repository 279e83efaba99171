//! The transitions: what each event does in each phase.

use std::mem;
use std::time::Instant;

use super::{
    Ask, AskId, Candidate, Command, Deployment, Event, Goal, Live, Notice, Outcome, PATIENCE, Phase, Policy,
    Stage, Standby, Tally, Ticket, Upload, inactive_of,
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
                if let Phase::Steady { standby, .. } = &mut self.phase {
                    *standby = Standby::Empty;
                }
            }
            Event::Exited(colour, exit) => {
                if let Some(active) = self.active().filter(|active| active.colour == colour) {
                    out.push(Command::Tell(Notice::ActiveExited(active, exit)));
                }
            }
            Event::Policy(policy) => self.policy_changed(policy, now, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// A drain takes a changed limit at once, counted from now; a candidate keeps the deadline it has.
    fn policy_changed(&mut self, policy: Policy, now: Instant, out: &mut Commands) {
        let before = mem::replace(&mut self.policy, policy);
        if let Phase::Draining { active, old, asks, .. } = &mut self.phase
            && before.drain != policy.drain
        {
            let (active, old, asks) = (*active, *old, mem::take(asks));
            self.drain(active, old, asks, now, out);
        }
    }

    fn ticket(&mut self) -> Ticket {
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

    /// There is a release to bring up; `asks` want it to become active.
    pub(super) fn offered(&mut self, release: ReleaseId, asks: Vec<Ask>, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Vacant { .. } => self.begin(None, release, asks, now, out),
            Phase::Steady { active, standby } => {
                let active = *active;
                if active.release != release && *standby != Standby::Warm(release) {
                    self.begin(Some(active), release, asks, now, out);
                }
            }
            Phase::Trying { candidate, .. } if candidate.release == release => candidate.asks.extend(asks),
            // It has the traffic: one release never runs as both services.
            Phase::Trying { active: Some(active), .. } if active.release == release => {}
            Phase::Trying { active, candidate } => {
                // Somebody named the candidate: that wish is carried out before a mere upload's turn comes.
                if asks.is_empty() && candidate.asks.iter().any(|ask| ask.goal != Goal::Other) {
                    self.queue(release, asks, out);
                } else {
                    let active = *active;
                    let (mut kept, passed): (Vec<_>, Vec<_>) =
                        mem::take(&mut candidate.asks).into_iter().partition(|ask| ask.goal == Goal::Other);
                    supersede(passed, release, out);
                    kept.extend(asks);
                    self.begin(active, release, kept, now, out);
                }
            }
            Phase::Switching { to, .. } if *to == release && asks.is_empty() => {}
            Phase::Draining { active, old, .. }
                if asks.is_empty() && (active.release == release || *old == release) => {}
            Phase::Switching { .. } | Phase::Draining { .. } => self.queue(release, asks, out),
        }
    }

    /// Lets a release wait its turn; the newest wins.
    fn queue(&mut self, release: ReleaseId, asks: Vec<Ask>, out: &mut Commands) {
        match &mut self.queued {
            Some((queued, waiting)) if *queued == release => waiting.extend(asks),
            _ => {
                let mut waiting = asks;
                if let Some((_, earlier)) = self.queued.take() {
                    let (kept, passed) = earlier.into_iter().partition(|ask| ask.goal == Goal::Other);
                    supersede(passed, release, out);
                    waiting.splice(0..0, Vec::from_iter::<Vec<Ask>>(kept));
                }
                self.queued = Some((release, waiting));
            }
        }
        out.push(Command::Persist);
    }

    /// Brings `release` up in the inactive colour.
    fn begin(
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

    /// Enters a stage of a switch, with a new ticket.
    fn switching(
        &mut self,
        from: Option<Live>,
        to: ReleaseId,
        stage: Stage,
        asks: Vec<Ask>,
        now: Instant,
    ) -> Ticket {
        let ticket = self.ticket();
        self.phase = Phase::Switching { from, to, stage, ticket, overdue: now + PATIENCE, asks };
        ticket
    }

    /// Asks the warm service once more before traffic goes to it.
    pub(super) fn verify(
        &mut self,
        from: Live,
        to: ReleaseId,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let ticket = self.switching(Some(from), to, Stage::Verifying, asks, now);
        out.push(Command::Verify(ticket, Live { colour: from.colour.other(), release: to }));
    }

    /// Moves the route: the decision goes to disk first.
    fn switch(
        &mut self,
        from: Option<Live>,
        to: ReleaseId,
        asks: Vec<Ask>,
        now: Instant,
        out: &mut Commands,
    ) {
        let ticket = self.switching(from, to, Stage::Moving, asks, now);
        let live = Live { colour: inactive_of(from), release: to };
        out.extend([Command::Persist, Command::PointAt(ticket, live)]);
    }

    fn ready(&mut self, ticket: Ticket, answer: String, now: Instant, out: &mut Commands) {
        match &mut self.phase {
            Phase::Trying { active, candidate } if candidate.ticket == ticket => {
                let (active, release) = (*active, candidate.release);
                let asks = mem::take(&mut candidate.asks);
                let live = Live { colour: inactive_of(active), release };
                out.push(Command::Tell(Notice::Ready(live, answer)));
                match active {
                    Some(active) if asks.is_empty() && self.policy.promote == Promote::Manual => {
                        self.phase = Phase::Steady { active, standby: Standby::Warm(release) };
                        out.push(Command::Persist);
                        self.next(now, out);
                    }
                    _ => self.switch(active, release, asks, now, out),
                }
            }
            Phase::Switching { from, to, stage: Stage::Verifying, ticket: current, asks, .. }
                if *current == ticket =>
            {
                let (from, to, asks) = (*from, *to, mem::take(asks));
                let live = Live { colour: inactive_of(from), release: to };
                out.push(Command::Tell(Notice::Ready(live, answer)));
                self.switch(from, to, asks, now, out);
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
                self.phase = match active {
                    Some(active) => {
                        Phase::Steady { active, standby: Standby::Failed(release, failure.clone()) }
                    }
                    None => Phase::Vacant { failed: Some((release, failure.clone())) },
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
        let Phase::Switching { from, to, stage: Stage::Moving, ticket: current, asks, .. } = &mut self.phase
        else {
            return;
        };
        if *current != ticket {
            return;
        }
        let (from, asks) = (*from, mem::take(asks));
        let active = Live { colour: inactive_of(from), release: *to };
        out.extend([
            Command::MarkServed(active.release),
            Command::Persist,
            Command::Tell(Notice::Moved { from, to: active }),
        ]);
        let (waiting, answered): (Vec<_>, Vec<_>) =
            asks.into_iter().partition(|ask| ask.wait && from.is_some());
        for ask in answered {
            out.push(done(ask, Outcome::Done { active, before: from, tally: None, already: false }));
        }
        match from {
            Some(old) => self.drain(active, old.release, waiting, now, out),
            None => {
                self.phase = Phase::Steady { active, standby: Standby::Empty };
                self.next(now, out);
            }
        }
        self.ask_later(now, out);
    }

    /// Asks those again who want back what traffic was moved away from.
    fn ask_later(&mut self, now: Instant, out: &mut Commands) {
        for ask in mem::take(&mut self.later) {
            self.asked(ask, now, out);
        }
    }

    fn drain(&mut self, active: Live, old: ReleaseId, asks: Vec<Ask>, now: Instant, out: &mut Commands) {
        let ticket = self.ticket();
        let until = self.policy.drain.and_then(|drain| now.checked_add(drain));
        self.phase = Phase::Draining { active, old, ticket, until, asks };
        out.push(Command::Drain(ticket, active.colour.other(), until));
    }

    fn not_moved(&mut self, ticket: Ticket, why: &str, now: Instant, out: &mut Commands) {
        let Phase::Switching { ticket: current, asks, .. } = &mut self.phase else { return };
        if *current != ticket {
            return;
        }
        for ask in mem::take(asks) {
            out.push(done(ask, Outcome::Refused(format!("the route could not be moved: {why}"))));
        }
        self.stay(now, out);
    }

    /// Gives a switch up. The connections that the other colour may still have are drained (again).
    fn stay(&mut self, now: Instant, out: &mut Commands) {
        let Phase::Switching { from, to, .. } = self.phase else { return };
        match from {
            Some(from) => self.drain(from, to, Vec::new(), now, out),
            None => {
                let failure = Failure::because("the route could not be moved to it");
                self.phase = Phase::Vacant { failed: Some((to, failure)) };
                self.next(now, out);
            }
        }
        out.push(Command::Persist);
        self.ask_later(now, out);
    }

    fn drained(&mut self, ticket: Ticket, tally: Tally, now: Instant, out: &mut Commands) {
        let Phase::Draining { active, old, ticket: current, asks, .. } = &mut self.phase else { return };
        if *current != ticket {
            return;
        }
        let (active, old, asks) = (*active, *old, mem::take(asks));
        let before = Some(Live { colour: active.colour.other(), release: old });
        self.phase = Phase::Steady { active, standby: Standby::Warm(old) };
        out.push(Command::Tell(Notice::Settled(tally)));
        for ask in asks {
            out.push(done(ask, Outcome::Done { active, before, tally: Some(tally), already: false }));
        }
        self.next(now, out);
    }

    /// Takes the release whose turn it is.
    fn next(&mut self, now: Instant, out: &mut Commands) {
        let Some((release, asks)) = self.queued.take() else { return };
        let asked = asks.iter().any(|ask| ask.goal != Goal::Other);
        let held = self.held().contains(&release);
        if held && !asks.is_empty() {
            // It is warm or active by now: each ask finds its own way.
            for mut ask in asks {
                ask.goal = if asked { ask.goal } else { Goal::Release(release) };
                self.asked(ask, now, out);
            }
        } else if !held {
            self.offered(release, asks, now, out);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Commands) {
        if self.wake_at().is_none_or(|due| now < due) {
            return;
        }
        match &self.phase {
            Phase::Trying { candidate, .. } => {
                let ticket = candidate.ticket;
                self.not_ready(ticket, Failure::because("its start did not come to an end"), now, out);
            }
            Phase::Switching { ticket, stage: Stage::Verifying, .. } => {
                let failure = Failure::because("it did not answer the question whether it is healthy");
                self.not_ready(*ticket, failure, now, out);
            }
            Phase::Switching { ticket, .. } => {
                self.not_moved(*ticket, "it did not answer in time", now, out);
            }
            Phase::Draining { ticket, .. } => self.drained(*ticket, Tally::default(), now, out),
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
