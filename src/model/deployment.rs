//! The deployment of one app as a state machine: an [`Event`] and the time go in, [`Command`]s come out.
//!
//! ```text
//!            Offered              Ready               Moved              Drained
//!  Vacant ─────────────▶ Trying ─────────▶ Switching ─────────▶ Draining ──▶ Baking ──▶ Steady
//!    ▲                    │  ▲  not asked for: Steady    ▲          │ switch again, │      │
//!    └──── NotReady ──────┘  └───────────────────────────┼──────────┴─ or it fails ─┴──────┤
//!                                    Offered             └───────── switch ────────────────┘
//! ```
//!
//! Between ready and `Switching` there may be a `Canary`, which ends as a switch, or as a drain of what got its share.
//!
//! One job at a time is under way in the world, and it carries a [`Ticket`]; the answer to an older one
//! is late and ignored. Whoever waits is an [`Ask`], and is answered exactly once.

mod asks;
mod bake;
mod canary;
mod messages;
mod queue;
mod saved;
mod transitions;

use std::time::{Duration, Instant};

use super::app::Promote;
use super::colour::Colour;
use super::health::Failure;
use super::release::ReleaseId;
use super::share::{Plan, Step};

pub use messages::{Ask, Command, Event, Goal, Notice, Outcome, Tally, Wait};
pub use saved::Saved;

/// How long a step that has no deadline of its own may be without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a job, so that late answers can be told from current ones.
pub type Ticket = u64;

/// Names someone who waits for an answer.
pub type AskId = u64;

/// A service that gets traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Its colour.
    pub colour: Colour,
    /// What it runs.
    pub release: ReleaseId,
}

impl Live {
    /// That release in the other colour.
    const fn beside(self, release: ReleaseId) -> Self {
        Self { colour: self.colour.other(), release }
    }
}

/// What the inactive service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standby {
    /// Not there.
    Empty,
    /// Up and found ready: a switch goes to it in milliseconds.
    Warm(ReleaseId),
    /// Stopped, because it did not get ready.
    Failed(ReleaseId, Failure),
}

impl Standby {
    fn of(saved: Option<&(ReleaseId, Option<Failure>)>) -> Self {
        match saved {
            None => Self::Empty,
            Some((release, None)) => Self::Warm(*release),
            Some((release, Some(failure))) => Self::Failed(*release, failure.clone()),
        }
    }

    fn saved(&self) -> Option<(ReleaseId, Option<Failure>)> {
        match self {
            Self::Empty => None,
            Self::Warm(release) => Some((*release, None)),
            Self::Failed(release, failure) => Some((*release, Some(failure.clone()))),
        }
    }

    const fn release(&self) -> Option<ReleaseId> {
        match self {
            Self::Empty => None,
            Self::Warm(release) | Self::Failed(release, _) => Some(*release),
        }
    }
}

/// A release that is being brought up in the colour that is not active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub release: ReleaseId,
    /// The job that brings it up.
    pub ticket: Ticket,
    /// When that job is overdue.
    pub overdue: Instant,
    /// Those who want it to become active.
    pub asks: Vec<Ask>,
}

/// How far a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The warm service is asked once more whether it is healthy.
    Verifying,
    /// The decision is on disk, the route is being moved.
    Moving,
}

/// Where a deployment stands. What a phase does not name is not true in it: a candidate, for example, has
/// no colour of its own, because it is always in the one that is not active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing gets traffic, and nothing is under way.
    Vacant {
        /// What the first service is: warm if somebody only wanted it ready.
        standby: Standby,
    },
    /// A candidate is coming up.
    Trying {
        /// What gets the traffic meanwhile.
        active: Option<Live>,
        /// What is coming up.
        candidate: Candidate,
    },
    /// Traffic goes to one service and nothing is under way.
    Steady {
        /// What gets the traffic.
        active: Live,
        /// What the other service is.
        standby: Standby,
    },
    /// A share of the clients is sent to the other service.
    Canary {
        /// What gets the rest.
        active: Live,
        /// What the other service runs.
        canary: ReleaseId,
        /// How much, and what follows.
        plan: Plan,
        /// When the next step is due.
        until: Option<Instant>,
        /// The job that sets the share, and when it is overdue; `None`: it is set.
        job: Option<(Ticket, Instant)>,
        /// Those who wait for it to be set.
        asks: Vec<Ask>,
    },
    /// Traffic is being moved.
    Switching {
        /// Where it comes from.
        from: Option<Live>,
        /// What it goes to, in the other colour.
        to: ReleaseId,
        /// How far it is.
        stage: Stage,
        /// Which way it goes.
        way: Way,
        /// The job.
        ticket: Ticket,
        /// When the job is overdue.
        overdue: Instant,
        /// Those who want it.
        asks: Vec<Ask>,
    },
    /// New connections go to the active service, old ones finish on the other.
    Draining {
        /// What gets the new connections.
        active: Live,
        /// What the other service runs.
        old: ReleaseId,
        /// Whether it had all the traffic, and not only a share: then it is the way back.
        was_active: bool,
        /// The job.
        ticket: Ticket,
        /// When it ends at the latest; `None`: when the last connection does.
        until: Option<Instant>,
        /// Until when the active service has to prove itself; `None`: it has, or need not.
        bake: Option<Instant>,
        /// Why what is drained was left by itself, and is to be stopped.
        bad: Option<Failure>,
        /// Those who wait for it.
        asks: Vec<Ask>,
    },
    /// The old connections are gone, and the active service still has to prove itself.
    Baking {
        /// What gets the traffic.
        active: Live,
        /// What the other service runs, warm.
        old: ReleaseId,
        /// Until when.
        until: Instant,
        /// What became of the old connections.
        tally: Tally,
        /// Those who wait for it.
        asks: Vec<Ask>,
    },
}

/// Which way a switch goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// To what has to prove itself under traffic.
    Forth,
    /// Not all of it: once it was found healthy, it gets a share.
    Part(Plan),
    /// Back to what was active before. If that does not work, what is left goes on to bake until then.
    Back(Option<Instant>),
    /// Back by itself, because what is left failed while it baked.
    Fallen {
        /// How it failed.
        failure: Failure,
        /// Those who waited for it to be proved.
        asks: Vec<Ask>,
    },
}

/// What is known of the newest upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    /// It has been dealt with.
    Dealt,
    /// Something is arriving: what is waited for.
    Incoming(String),
    /// It can't become a release, or is one that has failed before.
    Refused(Option<ReleaseId>, Failure),
}

/// What the machine needs to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who promotes a ready candidate.
    pub promote: Promote,
    /// How long old connections get.
    pub drain: Option<Duration>,
    /// How long what got the traffic is watched.
    pub bake: Duration,
    /// Whether what keeps ending by itself after that is left as well.
    pub failover: bool,
    /// How long a candidate has, and what it replaces before it to end.
    pub deadline: Duration,
    /// The steps of a canary.
    pub canary: Vec<Step>,
    /// Whether nothing new may come up by itself.
    pub frozen: bool,
}

impl Phase {
    /// What was going on, where both services are well.
    fn beside(active: Live, warm: ReleaseId, policy: &Policy, saved: &Saved, now: Instant) -> Self {
        let asks = Vec::new();
        if let Some(plan) = saved.canary.clone() {
            let until = plan.time.map(|time| now + time);
            return Self::Canary { active, canary: warm, plan, until, job: None, asks };
        }
        if saved.baking {
            let until = now + policy.bake;
            return Self::Baking { active, old: warm, until, tally: Tally::default(), asks };
        }
        Self::Steady { active, standby: Standby::Warm(warm) }
    }
}

/// The deployment of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    policy: Policy,
    phase: Phase,
    upload: Upload,
    /// A release that waits its turn, and those who want it to become active.
    queued: Option<(ReleaseId, Vec<Ask>)>,
    /// Those who wait for an upload to be dealt with.
    patient: Vec<Ask>,
    /// Those who want back what traffic is being moved away from.
    later: Vec<Ask>,
    /// When the active service ended by itself lately.
    ends: Vec<Instant>,
    last_ticket: Ticket,
}

impl Deployment {
    /// A deployment that begins from what was saved.
    #[must_use]
    pub fn new(policy: Policy, saved: &Saved, now: Instant) -> Self {
        let phase = match (saved.active, Standby::of(saved.standby.as_ref())) {
            (Some(active), Standby::Warm(warm)) => Phase::beside(active, warm, &policy, saved, now),
            (Some(active), standby) => Phase::Steady { active, standby },
            (None, standby) => Phase::Vacant { standby },
        };
        Self {
            policy,
            phase,
            upload: Upload::Dealt,
            queued: None,
            patient: Vec::new(),
            later: Vec::new(),
            ends: Vec::new(),
            last_ticket: 0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What is known of the newest upload.
    #[must_use]
    pub const fn upload(&self) -> &Upload {
        &self.upload
    }

    /// The release that waits its turn.
    #[must_use]
    pub fn queued(&self) -> Option<ReleaseId> {
        self.queued.as_ref().map(|(release, _)| *release)
    }

    /// What gets the traffic.
    #[must_use]
    pub const fn active(&self) -> Option<Live> {
        match &self.phase {
            Phase::Vacant { .. } => None,
            Phase::Trying { active, .. } => *active,
            Phase::Canary { active, .. } => Some(*active),
            Phase::Steady { active, .. } | Phase::Draining { active, .. } | Phase::Baking { active, .. } => {
                Some(*active)
            }
            Phase::Switching { from, .. } => *from,
        }
    }

    /// What gets a share of the clients, and how much.
    #[must_use]
    pub fn canary(&self) -> Option<(Live, &Plan)> {
        match &self.phase {
            Phase::Canary { active, canary, plan, .. } => Some((active.beside(*canary), plan)),
            _ => None,
        }
    }

    /// The service whose health counts most now, and whether it still has to prove itself.
    #[must_use]
    pub fn watched(&self) -> Option<(Live, bool)> {
        let canary = self.canary().map(|(canary, _)| (canary, true));
        canary.or_else(|| self.active().map(|active| (active, self.is_baking())))
    }

    /// The colour that a candidate or the standby has.
    #[must_use]
    pub fn inactive_colour(&self) -> Colour {
        inactive_of(self.active())
    }

    /// Whether the switch that is under way is a way back, by itself or because somebody asked for it.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        matches!(&self.phase, Phase::Switching { way, asks, .. }
            if matches!(way, Way::Fallen { .. }) || asks.iter().any(|ask| ask.rollback))
    }

    /// Whether the active service still has to prove itself.
    #[must_use]
    pub const fn is_baking(&self) -> bool {
        matches!(&self.phase, Phase::Draining { bake: Some(_), .. } | Phase::Baking { .. })
    }

    /// The releases that are in use or about to be: the active one first.
    #[must_use]
    pub fn held(&self) -> Vec<ReleaseId> {
        let other = match &self.phase {
            Phase::Vacant { standby } | Phase::Steady { standby, .. } => standby.release(),
            Phase::Trying { candidate, .. } => Some(candidate.release),
            Phase::Switching { to, .. } => Some(*to),
            Phase::Canary { canary, .. } => Some(*canary),
            Phase::Draining { old, .. } | Phase::Baking { old, .. } => Some(*old),
        };
        self.active().map(|live| live.release).into_iter().chain(other).chain(self.queued()).collect()
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let next = match &self.phase {
            Phase::Draining { bake, .. } => *bake,
            Phase::Baking { until, .. } => Some(*until),
            // While it is frozen it gets no more.
            Phase::Canary { until, .. } => until.filter(|_| !self.policy.frozen),
            _ => None,
        };
        self.overdue_at().into_iter().chain(next).min()
    }

    /// When the job that is under way should have been done long since.
    #[must_use]
    pub fn overdue_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Vacant { .. } | Phase::Steady { .. } | Phase::Baking { .. } => None,
            Phase::Trying { candidate, .. } => Some(candidate.overdue),
            Phase::Switching { overdue, .. } => Some(*overdue),
            Phase::Canary { job, .. } => job.map(|(_, overdue)| overdue),
            Phase::Draining { until, .. } => until.map(|until| until + PATIENCE),
        }
    }
}

/// The colour that is not active; green where nothing is, so that the first release is green.
fn inactive_of(active: Option<Live>) -> Colour {
    active.map_or(Colour::Green, |live| live.colour.other())
}
