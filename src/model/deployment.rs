//! The deployment of one app as a state machine: an [`Event`] and the time go in, [`Command`]s come out.
//!
//! ```text
//!            Offered              Ready               Moved              Drained
//!  Vacant ─────────────▶ Trying ─────────▶ Switching ─────────▶ Draining ─────────▶ Steady
//!    ▲                    │  ▲  not asked for: Steady    ▲          │ switch again      │
//!    └──── NotReady ──────┘  └───────────────────────────┼──────────┴───────────────────┤
//!                                    Offered             └───────── switch ─────────────┘
//! ```
//!
//! One job at a time is under way in the world, and it carries a [`Ticket`]; the answer to an older one
//! is late and ignored. Whoever waits is an [`Ask`], and is answered exactly once.

mod asks;
mod saved;
mod transitions;

use std::time::{Duration, Instant};

use super::app::Promote;
use super::colour::Colour;
use super::health::{Exit, Failure};
use super::release::ReleaseId;

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
        /// What failed last.
        failed: Option<(ReleaseId, Failure)>,
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
    /// Traffic is being moved.
    Switching {
        /// Where it comes from.
        from: Option<Live>,
        /// What it goes to, in the other colour.
        to: ReleaseId,
        /// How far it is.
        stage: Stage,
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
        /// The job.
        ticket: Ticket,
        /// When it ends at the latest; `None`: when the last connection does.
        until: Option<Instant>,
        /// Those who wait for it.
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

/// What a user wants to be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The service that is not active now.
    Other,
    /// The service of that colour.
    Colour(Colour),
    /// That release, which the store holds.
    Release(ReleaseId),
}

/// A user who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whom to answer.
    pub id: AskId,
    /// What is wanted.
    pub goal: Goal,
    /// Whether a candidate and the drain are waited for.
    pub wait: bool,
    /// Whether it is a rollback.
    pub rollback: bool,
}

/// What happened to the connections of a drained service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many ended by themselves.
    pub finished: usize,
    /// How many were closed because nothing happened on them.
    pub quiet: usize,
    /// How many were closed because the time was up.
    pub cut: usize,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is so.
    Done {
        /// What is active now.
        active: Live,
        /// What was active before.
        before: Option<Live>,
        /// What became of the old connections, where the drain was waited for.
        tally: Option<Tally>,
        /// Whether it was so already.
        already: bool,
    },
    /// It can't be done, and nothing was changed: why, and what to do.
    Refused(String),
    /// The release that it would have gone to is not healthy; nothing was changed.
    NotHealthy {
        /// The release, unless the upload did not even become one.
        release: Option<ReleaseId>,
        /// The colour it was tried in.
        colour: Option<Colour>,
        /// Why.
        failure: Failure,
        /// Whether it was a rollback.
        rollback: bool,
        /// What goes on serving.
        active: Option<Live>,
    },
    /// Something newer took its place.
    Superseded(String),
    /// Not now: what is under way.
    Busy(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An upload became a release, or is one that is there already: it is to be ready at least.
    Offered(ReleaseId),
    /// The same of a release that has nothing to do with an upload: a changed configuration, a restart.
    Wanted(ReleaseId),
    /// What is known of the newest upload changed.
    Upload(Upload),
    /// A user wants something.
    Asked(Ask),
    /// Whoever asked is gone.
    Gone(AskId),
    /// The service that a job was about is ready: its last health answer.
    Ready(Ticket, String),
    /// It is not.
    NotReady(Ticket, Failure),
    /// The route points where it was told to.
    Moved(Ticket),
    /// It does not: why.
    NotMoved(Ticket, String),
    /// No old connection is left.
    Drained(Ticket, Tally),
    /// The inactive service is not there any more.
    StandbyLost,
    /// A service ended without having been told to.
    Exited(Colour, Exit),
    /// The configuration was changed.
    Policy(Policy),
    /// Time passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write [`Deployment::saved`] to disk before going on.
    Persist,
    /// Write down that the release is active now.
    MarkServed(ReleaseId),
    /// Write down that the release failed.
    MarkFailed(ReleaseId, Failure),
    /// Start the release in that colour and answer `Ready`, or stop it again and answer `NotReady`.
    Try(Ticket, Live),
    /// Ask the running service of that colour once, and answer `Ready` or `NotReady`.
    Verify(Ticket, Live),
    /// Point the route at that service and answer `Moved` or `NotMoved`.
    PointAt(Ticket, Live),
    /// Drain the service of that colour and answer `Drained`.
    Drain(Ticket, Colour, Option<Instant>),
    /// Tell those who watch.
    Tell(Notice),
    /// Answer someone.
    Answer(AskId, Outcome),
}

/// A step that those who wait or watch are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// What is waited for.
    Waiting(String),
    /// A candidate is being brought up.
    Trying(Live),
    /// A service is ready: its last health answer.
    Ready(Live, String),
    /// A candidate failed.
    Failed(Live, Failure),
    /// New connections go to another service.
    Moved {
        /// What was active.
        from: Option<Live>,
        /// What is active.
        to: Live,
    },
    /// Old connections are being waited for: how many, and for how long at the most.
    Draining {
        /// Whose.
        colour: Colour,
        /// How many are open.
        open: usize,
        /// How long they still have.
        left: Option<Duration>,
    },
    /// A drain is over.
    Settled(Tally),
    /// The active service ended by itself; its supervisor starts it again.
    ActiveExited(Live, Exit),
}

/// What the machine needs to know of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Who promotes a ready candidate.
    pub promote: Promote,
    /// How long old connections get.
    pub drain: Option<Duration>,
    /// How long a candidate has.
    pub deadline: Duration,
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
    last_ticket: Ticket,
}

impl Deployment {
    /// A deployment that begins from what was saved.
    #[must_use]
    pub fn new(policy: Policy, saved: &Saved) -> Self {
        let phase = match saved.active {
            Some(active) => Phase::Steady {
                active,
                standby: match &saved.standby {
                    Some((release, None)) => Standby::Warm(*release),
                    Some((release, Some(failure))) => Standby::Failed(*release, failure.clone()),
                    None => Standby::Empty,
                },
            },
            None => Phase::Vacant {
                failed: match &saved.standby {
                    Some((release, Some(failure))) => Some((*release, failure.clone())),
                    _ => None,
                },
            },
        };
        Self {
            policy,
            phase,
            upload: Upload::Dealt,
            queued: None,
            patient: Vec::new(),
            later: Vec::new(),
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
            Phase::Steady { active, .. } | Phase::Draining { active, .. } => Some(*active),
            Phase::Switching { from, .. } => *from,
        }
    }

    /// The colour that a candidate or the standby has.
    #[must_use]
    pub fn inactive_colour(&self) -> Colour {
        inactive_of(self.active())
    }

    /// Whether the switch that is under way is a way back that somebody asked for.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        matches!(&self.phase, Phase::Switching { asks, .. } if asks.iter().any(|ask| ask.rollback))
    }

    /// The releases that are in use or about to be: the active one first.
    #[must_use]
    pub fn held(&self) -> Vec<ReleaseId> {
        let other = match &self.phase {
            Phase::Vacant { failed } => failed.as_ref().map(|(release, _)| *release),
            Phase::Trying { candidate, .. } => Some(candidate.release),
            Phase::Steady { standby, .. } => match standby {
                Standby::Empty => None,
                Standby::Warm(release) | Standby::Failed(release, _) => Some(*release),
            },
            Phase::Switching { to, .. } => Some(*to),
            Phase::Draining { old, .. } => Some(*old),
        };
        self.active().map(|live| live.release).into_iter().chain(other).chain(self.queued()).collect()
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Vacant { .. } | Phase::Steady { .. } => None,
            Phase::Trying { candidate, .. } => Some(candidate.overdue),
            Phase::Switching { overdue, .. } => Some(*overdue),
            Phase::Draining { until, .. } => until.map(|until| until + PATIENCE),
        }
    }
}

/// The colour that is not active; green where nothing is, so that the first release is green.
fn inactive_of(active: Option<Live>) -> Colour {
    active.map_or(Colour::Green, |live| live.colour.other())
}
