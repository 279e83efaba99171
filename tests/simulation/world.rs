//! A small deterministic world: it carries commands out late, wrongly, or not at all, and it crashes.

use std::time::{Duration, Instant};

use dorc::model::app::Promote;
use dorc::model::colour::{ByColour, Colour};
use dorc::model::deployment::{
    Ask, Command, Deployment, Event, Goal, Live, Outcome, Phase, Policy, Saved, Standby, Tally, Ticket,
    Upload, Wait,
};
use dorc::model::health::{Exit, Failure};
use dorc::model::release::{Digest, ReleaseId};
use dorc::model::share::{Share, Step};

use crate::random::Random;
use crate::rules;

/// Something that a world does wrong on purpose, so that the rules are seen to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The disk keeps the state before.
    WritesLate,
    /// Candidates that failed are called ready.
    CallsAllReady,
    /// The route does not move when it says so.
    RouteStays,
    /// Whoever had a share of the clients keeps it when it is drained.
    ShareStays,
    /// Answers are given twice.
    AnswersTwice,
    /// Drained tells nothing.
    NeverWakes,
}

impl Sabotage {
    pub const ALL: [Self; 6] = [
        Self::WritesLate,
        Self::CallsAllReady,
        Self::RouteStays,
        Self::ShareStays,
        Self::AnswersTwice,
        Self::NeverWakes,
    ];
}

/// A process that runs as a service.
#[derive(Debug, Clone)]
pub struct Runs {
    pub release: ReleaseId,
    /// Whether it was found ready since its start.
    pub ready: bool,
}

/// A user, and what became of the wish.
#[derive(Debug, Clone)]
pub struct Asked {
    pub ask: Ask,
    pub answered: bool,
    pub gone: bool,
}

/// What the job that is under way does to the world when it is done.
#[derive(Debug, Clone)]
enum Effect {
    Ready(Colour),
    Stopped(Colour),
    Route(Live),
    Split(Live),
    Nothing,
}

/// The one job, as the engine has it: a newer one ends it.
#[derive(Debug, Clone)]
struct Job {
    at: Instant,
    effect: Effect,
    event: Option<Event>,
}

pub struct World {
    pub sabotage: Option<Sabotage>,
    random: Random,
    tell: bool,
    calm: bool,
    now: Instant,
    policy: Policy,
    deployment: Deployment,
    disk: Saved,
    route: Option<Live>,
    split: Option<Live>,
    /// Whether the route outlives the daemon, as the kernel plane's does.
    pinned: bool,
    services: ByColour<Option<Runs>>,
    job: Option<Job>,
    /// Answers of jobs that were ended after they had been sent.
    late: Vec<Event>,
    newest: u32,
    uploaded: Option<ReleaseId>,
    /// Whether the disk knows of it: otherwise it is taken again after a crash.
    stored: bool,
    asked: Vec<Asked>,
    has_asks: bool,
    tickets: Ticket,
}

fn release(number: u32) -> ReleaseId {
    ReleaseId::new(number, &Digest([u8::try_from(number % 251).expect("small"); 32]))
}

/// Every fourth release never gets ready.
fn is_bad(release: ReleaseId) -> bool {
    release.number % 4 == 3
}

impl World {
    pub fn new(seed: u64, tell: bool) -> Self {
        let mut random = Random::new(seed);
        let policy = policy(&mut random);
        let (pinned, has_asks) = (random.once_in(2), !random.once_in(8));
        Self {
            sabotage: None,
            random,
            tell,
            calm: false,
            now: Instant::now(),
            policy: policy.clone(),
            deployment: Deployment::new(policy, &Saved::default(), Instant::now()),
            disk: Saved::default(),
            route: None,
            split: None,
            pinned,
            services: ByColour::default(),
            job: None,
            late: Vec::new(),
            newest: 0,
            uploaded: None,
            stored: true,
            asked: Vec::new(),
            has_asks,
            tickets: 0,
        }
    }

    /// Something happens.
    pub fn step(&mut self) {
        match self.random.below(20) {
            0..3 => self.upload(),
            3..7 if self.has_asks => self.ask(),
            7 => self.leave(),
            8 if !self.late.is_empty() => {
                let event = self.late.remove(0);
                self.happen(event);
            }
            9 => self.invented_answer(),
            10 if self.random.once_in(4) => self.crash(),
            11 if self.random.once_in(4) => {
                self.policy = policy(&mut self.random);
                self.happen(Event::Policy(self.policy.clone()));
            }
            12 => self.exit(),
            13 => self.ail(),
            14 if self.deployment.is_baking() || self.deployment.canary().is_some() => self.ail(),
            _ => self.pass_time(),
        }
        rules::of_share(&self.deployment, self.split);
    }

    /// Everything answers and nothing new comes: it ends, and nobody is left without an answer.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.policy.frozen = false;
        self.happen(Event::Policy(self.policy.clone()));
        self.happen(Event::Upload(Upload::Dealt));
        for _ in 0..200 {
            if self.job.is_none() && self.deployment.wake_at().is_none() {
                break;
            }
            self.pass_time();
        }
        // A canary without steps lasts for ever.
        if let (Phase::Canary { .. }, Some(active)) = (self.deployment.phase(), self.deployment.active()) {
            let id = self.asked.len() as u64 + 1;
            let ask = Ask { id, goal: Goal::Colour(active.colour), wait: Wait::Drained, rollback: true };
            self.asked.push(Asked { ask, answered: false, gone: false });
            self.happen(Event::Asked(ask));
            return self.calm_down();
        }
        let phase = self.deployment.phase().clone();
        assert!(matches!(phase, Phase::Vacant { .. } | Phase::Steady { .. }), "it does not end: {phase:?}");
        assert_eq!(self.deployment.queued(), None, "a release waits for ever");
        for asked in &self.asked {
            assert!(asked.answered || asked.gone, "no answer: {asked:?} in {phase:?}");
        }
        if let (false, Some(uploaded)) = (self.has_asks, self.uploaded) {
            assert!(self.deployment.held().contains(&uploaded), "{uploaded} was forgotten: {phase:?}");
        }
        if let Phase::Steady { active, standby } = phase {
            assert_eq!(self.route, Some(active));
            if let Standby::Warm(warm) = standby {
                let runs = self.services[active.colour.other()].as_ref().expect("what is warm runs");
                assert_eq!(runs.release, warm);
            }
        }
    }

    fn say(&self, what: &dyn Fn() -> String) {
        if self.tell {
            eprintln!("{}", what());
        }
    }

    fn happen(&mut self, event: Event) {
        let deployment = self.deployment.clone();
        let before = deployment.phase();
        self.say(&|| format!("-- {event:?}"));
        let commands = self.deployment.handle(event.clone(), self.now);
        rules::of_transition(before, &event, &commands);
        rules::of_preparing(before, &event, &commands);
        rules::of_bake(&deployment, &event, &commands);
        rules::of_loyalty(&deployment, &event, &commands, &self.policy);
        rules::of_jobs(&commands, self.deployment.phase());
        rules::of_canary(&deployment, &event, &commands, &self.policy);
        rules::of_deployment(&self.deployment, &self.policy);
        let crash_after = (!self.calm && self.random.once_in(60)).then(|| self.random.below(4));
        for (index, command) in commands.into_iter().enumerate() {
            if crash_after == Some(index as u64) {
                return self.crash();
            }
            self.say(&|| format!("   {command:?}"));
            self.carry_out(command);
            rules::of_route(self.route, &self.services);
            rules::of_route(self.split, &self.services);
            rules::of_colours(&self.services);
        }
        self.say(&|| format!("   {:?}", self.deployment.phase()));
        for asked in &self.asked {
            rules::of_impatience(asked, &self.deployment);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Persist if self.sabotage == Some(Sabotage::WritesLate) && self.random.once_in(2) => {}
            Command::Persist => {
                self.disk = self.deployment.saved();
                self.stored = true;
            }
            Command::Try(ticket, live) => self.start(ticket, live),
            Command::Verify(ticket, live) => {
                let healthy = self.calm || !self.random.once_in(5);
                let runs = self.services[live.colour].as_ref().map(|runs| runs.release);
                let event = if healthy && runs == Some(live.release) {
                    Event::Ready(ticket, "200".into())
                } else {
                    Event::NotReady(ticket, Failure::because("503"))
                };
                self.begin(ticket, Effect::Nothing, event, 2_000);
            }
            Command::PointAt(ticket, live) => {
                rules::of_point_at(live, &self.services, &self.disk);
                if !self.calm && self.random.once_in(8) {
                    self.begin(ticket, Effect::Nothing, Event::NotMoved(ticket, "no".into()), 1_000);
                } else {
                    self.begin(ticket, Effect::Route(live), Event::Moved(ticket), 1_000);
                }
            }
            Command::Split(ticket, live, _) => {
                rules::of_split(live, &self.services);
                rules::of_canary_on_disk(&self.deployment, &self.disk);
                if !self.calm && self.random.once_in(8) {
                    self.begin(ticket, Effect::Nothing, Event::NotMoved(ticket, "no".into()), 1_000);
                } else {
                    self.begin(ticket, Effect::Split(live), Event::Moved(ticket), 1_000);
                }
            }
            Command::Drain(ticket, colour, until) => {
                self.end_share();
                assert!(self.route.is_none_or(|to| to.colour != colour), "what gets the traffic is drained");
                let most = until.map_or(60_000, |until| millis(until.saturating_duration_since(self.now)));
                self.begin(ticket, Effect::Nothing, Event::Drained(ticket, Tally::default()), most.max(1));
            }
            Command::Retire(ticket, colour, until) => {
                assert!(self.route.is_none_or(|to| to.colour != colour), "what gets the traffic is stopped");
                self.end_share();
                let most = until.map_or(60_000, |until| millis(until.saturating_duration_since(self.now)));
                let event = Event::Drained(ticket, Tally::default());
                self.begin(ticket, Effect::Stopped(colour), event, most.max(1));
            }
            Command::Answer(id, outcome) => self.answer(id, &outcome),
            Command::MarkServed(release) => {
                assert_eq!(self.route.map(|live| live.release), Some(release), "served without traffic");
            }
            Command::MarkBad(bad, _) => {
                let had_traffic = |runs: &Runs| runs.ready && runs.release == bad;
                let one = Colour::BOTH
                    .iter()
                    .any(|colour| self.services[*colour].as_ref().is_some_and(had_traffic));
                assert!(one, "bad without traffic");
            }
            Command::MarkFailed(..) | Command::Tell(_) => {}
        }
    }

    /// Stops what runs in that colour, and starts the release there.
    fn start(&mut self, ticket: Ticket, live: Live) {
        rules::of_try(live, self.route, &self.deployment);
        self.services[live.colour] = Some(Runs { release: live.release, ready: false });
        if is_bad(live.release) && self.sabotage != Some(Sabotage::CallsAllReady) {
            let event = Event::NotReady(ticket, Failure::because("exit status 3"));
            self.begin(ticket, Effect::Stopped(live.colour), event, 3_000);
        } else {
            let is_ready = !is_bad(live.release);
            let effect = if is_ready { Effect::Ready(live.colour) } else { Effect::Nothing };
            self.begin(ticket, effect, Event::Ready(ticket, "200".into()), 3_000);
        }
    }

    /// A job begins in place of the one before, whose answer may be on its way already. Sometimes there is none.
    fn begin(&mut self, ticket: Ticket, effect: Effect, event: Event, most: u64) {
        assert!(ticket > self.tickets, "a ticket is used twice");
        self.tickets = ticket;
        if let Some(Job { event: Some(event), .. }) = self.job.take()
            && self.random.once_in(3)
        {
            self.late.push(event);
        }
        let at = self.now + Duration::from_millis(self.random.below(most));
        let hangs = !self.calm && self.random.once_in(10);
        let (effect, event) = if hangs { (Effect::Nothing, None) } else { (effect, Some(event)) };
        self.job = Some(Job { at, effect, event });
    }

    /// Time goes on until the job is done, the machine is due, or nothing of both comes.
    fn pass_time(&mut self) {
        if self.sabotage == Some(Sabotage::NeverWakes)
            && matches!(self.deployment.phase(), Phase::Draining { .. })
        {
            return;
        }
        let due = self.deployment.wake_at();
        let done = self.job.as_ref().filter(|job| job.event.is_some()).map(|job| job.at);
        let Some(next) = due.into_iter().chain(done).min() else {
            self.now += Duration::from_secs(1);
            // What hangs for ever without a deadline is only a drain that may; some day it does end.
            if let (Some(_), Phase::Draining { ticket, .. }) = (self.job.take(), self.deployment.phase()) {
                let ticket = *ticket;
                self.happen(Event::Drained(ticket, Tally::default()));
            }
            return;
        };
        self.now = self.now.max(next);
        if done != Some(next) {
            return self.happen(Event::Tick);
        }
        let Some(Job { effect, event: Some(event), .. }) = self.job.take() else { return };
        match effect {
            Effect::Ready(colour) => {
                if let Some(runs) = &mut self.services[colour] {
                    runs.ready = true;
                }
            }
            Effect::Stopped(colour) => self.services[colour] = None,
            Effect::Route(live) if self.sabotage != Some(Sabotage::RouteStays) => {
                self.route = Some(live);
                self.split = None;
            }
            Effect::Split(live) => self.split = Some(live),
            Effect::Route(_) | Effect::Nothing => {}
        }
        self.happen(event);
    }

    fn upload(&mut self) {
        match self.random.below(4) {
            0 => self.happen(Event::Upload(Upload::Incoming("it is being changed".into()))),
            1 => {
                let known = self.newest > 0 && self.random.once_in(2);
                let known = known.then(|| self.any_release());
                self.happen(Event::Upload(Upload::Refused(known, Failure::because("not whole"))));
            }
            2 if self.newest > 0 => {
                let known = self.any_release();
                self.offer(known);
            }
            _ => {
                self.newest += 1;
                self.offer(release(self.newest));
            }
        }
    }

    fn offer(&mut self, release: ReleaseId) {
        self.uploaded = Some(release);
        self.stored = false;
        self.happen(Event::Offered(release));
        self.stored = true;
    }

    fn any_release(&mut self) -> ReleaseId {
        let least = self.newest.saturating_sub(4).max(1);
        release(least + u32::try_from(self.random.below(u64::from(self.newest - least + 1))).expect("small"))
    }

    fn ask(&mut self) {
        let goal = match self.random.below(4) {
            0 | 1 => Goal::Other,
            2 => Goal::Colour(self.random.pick(&Colour::BOTH)),
            _ if self.newest == 0 => Goal::Other,
            _ if self.random.once_in(3) => {
                Goal::Canary(self.random.pick(&[None, Share::new(1000), Share::new(5000)]))
            }
            _ if self.random.once_in(3) => Goal::Ready(self.any_release()),
            _ => Goal::Release(self.any_release()),
        };
        let id = self.asked.len() as u64 + 1;
        let wait = self.random.pick(&[Wait::Moved, Wait::Drained, Wait::Drained, Wait::Baked]);
        let ask = Ask { id, goal, wait, rollback: self.random.once_in(4) };
        self.asked.push(Asked { ask, answered: false, gone: false });
        self.happen(Event::Asked(ask));
    }

    fn leave(&mut self) {
        let waiting: Vec<usize> =
            (0..self.asked.len()).filter(|index| !self.asked[*index].answered).collect();
        if !waiting.is_empty() {
            let index = self.random.pick(&waiting);
            self.asked[index].gone = true;
            let id = self.asked[index].ask.id;
            self.happen(Event::Gone(id));
        }
    }

    fn answer(&mut self, id: u64, outcome: &Outcome) {
        let asked = &mut self.asked[usize::try_from(id - 1).expect("an index")];
        assert!(!asked.answered, "two answers to {asked:?}");
        asked.answered = self.sabotage != Some(Sabotage::AnswersTwice);
        rules::of_answer(asked, outcome, self.route);
        if self.sabotage == Some(Sabotage::AnswersTwice) {
            asked.answered = true;
            self.answer(id, outcome);
        }
    }

    /// An answer to a job of long ago, or to none that ever was.
    fn invented_answer(&mut self) {
        let ticket = match self.tickets.checked_sub(1 + self.random.below(5)) {
            Some(old) => old,
            None => return,
        };
        let event = match self.random.below(5) {
            0 => Event::Ready(ticket, "late".into()),
            1 => Event::NotReady(ticket, Failure::because("late")),
            2 => Event::Moved(ticket),
            3 => Event::NotMoved(ticket, "late".into()),
            _ => Event::Drained(ticket, Tally::default()),
        };
        let before = self.deployment.clone();
        self.happen(event);
        let unchanged = self.deployment == before;
        // A crash may have come meanwhile, which begins anew.
        assert!(unchanged || self.tickets == 0, "a late answer changed something");
    }

    fn exit(&mut self) {
        let colour = self.random.pick(&Colour::BOTH);
        if self.services[colour].is_some() {
            self.happen(Event::Exited(colour, Exit { how: "killed by SIGSEGV".into(), after: None }));
        }
    }

    /// The active service falls ill, or what was active before.
    fn ail(&mut self) {
        let colour = self.random.pick(&Colour::BOTH);
        if let Some(runs) = &self.services[colour] {
            let live = Live { colour, release: runs.release };
            self.happen(Event::Unhealthy(live, Failure::because("503")));
        }
    }

    /// The daemon dies, or the whole host; then it begins as the engine's recovery does.
    fn crash(&mut self) {
        let reboot = self.random.once_in(3);
        self.say(&|| format!("== crash, reboot {reboot}, disk {:?}", self.disk));
        for asked in &mut self.asked {
            asked.gone = true;
        }
        self.job = None;
        self.late.clear();
        self.tickets = 0;
        if reboot {
            self.services = ByColour::default();
        }
        if reboot || !self.pinned {
            self.route = None;
            self.split = None;
        }
        let mut saved = self.disk.clone();
        if let (Some(route), Some(active), Some((other, None))) = (self.route, saved.active, &saved.standby)
            && route.colour != active.colour
        {
            let other = Live { colour: route.colour, release: *other };
            saved.standby = Some((active.release, None));
            saved.active = Some(other);
            saved.baking = false;
            saved.canary = None;
        }
        self.deployment = Deployment::new(self.policy.clone(), &saved, self.now);
        let lost = self.uploaded.filter(|_| !self.stored);
        self.recover(&saved);
        if let Some(lost) = lost {
            self.offer(lost);
        }
    }

    fn recover(&mut self, saved: &Saved) {
        if let Some(active) = self.deployment.active() {
            if self.services[active.colour].as_ref().map(|runs| runs.release) != Some(active.release) {
                // It was ready before; its supervisor starts it, and connections are held meanwhile.
                self.services[active.colour] = Some(Runs { release: active.release, ready: true });
            }
            self.route = Some(active);
            self.recover_inactive(active.colour.other(), saved.wanted);
            self.split = self.deployment.canary().map(|(canary, _)| canary);
        } else {
            self.services[Colour::Blue] = None;
        }
        if let Some(wanted) = saved.wanted {
            self.happen(Event::Wanted(wanted));
        }
        self.disk = self.deployment.saved();
    }

    fn end_share(&mut self) {
        rules::of_canary_on_disk(&self.deployment, &self.disk);
        if self.sabotage != Some(Sabotage::ShareStays) {
            self.split = None;
        }
    }

    fn recover_inactive(&mut self, colour: Colour, wanted: Option<ReleaseId>) {
        let runs = self.services[colour].as_ref().map(|runs| runs.release);
        let standby = match self.deployment.phase().clone() {
            Phase::Steady { standby, .. } => standby,
            Phase::Canary { canary: old, .. } | Phase::Baking { old, .. } => Standby::Warm(old),
            _ => return,
        };
        match standby {
            Standby::Warm(warm) if runs == Some(warm) => {}
            Standby::Warm(warm) => {
                self.services[colour] = None;
                self.happen(Event::StandbyLost);
                if wanted.is_none() {
                    self.happen(Event::Wanted(warm));
                }
            }
            Standby::Empty | Standby::Failed(..) => self.services[colour] = None,
        }
    }
}

fn policy(random: &mut Random) -> Policy {
    Policy {
        promote: random.pick(&[Promote::Manual, Promote::Manual, Promote::Auto]),
        drain: random.pick(&[Some(Duration::ZERO), Some(Duration::from_secs(30)), None]),
        bake: random.pick(&[Duration::ZERO, Duration::from_secs(5), Duration::from_secs(60)]),
        failover: random.once_in(2),
        deadline: Duration::from_secs(1 + random.below(60)),
        canary: random.pick(&[Vec::new(), steps()]),
        frozen: random.once_in(8),
    }
}

fn steps() -> Vec<Step> {
    let step = |parts, seconds| Step {
        share: Share::new(parts).expect("a share"),
        time: Duration::from_secs(seconds),
    };
    vec![step(500, 5), step(2500, 20)]
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}
