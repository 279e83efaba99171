//! What goes into the machine, and what comes out of it.

use std::time::{Duration, Instant};

use super::{AskId, Live, Policy, Ticket, Upload};
use crate::model::colour::Colour;
use crate::model::health::{Exit, Failure};
use crate::model::release::ReleaseId;
use crate::model::share::Share;

/// What a user wants to be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The service that is not active now.
    Other,
    /// The service of that colour.
    Colour(Colour),
    /// That release, which the store holds.
    Release(ReleaseId),
    /// The other service gets that share of the clients; `None`: as the steps of the configuration say.
    Canary(Option<Share>),
    /// No move of traffic yet: that release is to be ready for one.
    Ready(ReleaseId),
}

impl Goal {
    /// Whether it is about whatever the other service holds, up to the newest upload, and not about what was named.
    pub(super) const fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::Canary(_))
    }
}

/// What someone waits for before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// That the route has moved; not for a candidate that has to come up first.
    Moved,
    /// That the old connections are gone.
    Drained,
    /// That the new service has proved itself.
    Baked,
}

/// A user who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whom to answer.
    pub id: AskId,
    /// What is wanted.
    pub goal: Goal,
    /// How far it is waited for.
    pub wait: Wait,
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
    /// The release is ready for traffic, as it was wanted.
    Ready(Live),
    /// It gets that share of the clients, as it was wanted.
    Canary {
        /// What gets it.
        canary: Live,
        /// How much.
        share: Share,
        /// What gets the rest.
        active: Live,
    },
    /// It was done, but what got the traffic failed while it was watched: the route went back by itself.
    RolledBack {
        /// What failed.
        failed: Live,
        /// How.
        failure: Failure,
        /// What is active again.
        active: Live,
    },
    /// The same, but the route could not be moved back.
    NotRolledBack {
        /// What failed, and is active still.
        failed: Live,
        /// How.
        failure: Failure,
        /// Why the route did not move.
        why: String,
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
    /// The active service is not healthy any more, or whatever watches over it in its bake says no.
    Unhealthy(Live, Failure),
    /// The active service is healthy again: its last health answer.
    Healthy(Live, String),
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
    /// Write down that the release failed before it got traffic.
    MarkFailed(ReleaseId, Failure),
    /// Write down that the release failed with traffic on it.
    MarkBad(ReleaseId, Failure),
    /// Start the release in that colour and answer `Ready`, or stop it again and answer `NotReady`.
    Try(Ticket, Live),
    /// Ask the running service of that colour once, and answer `Ready` or `NotReady`.
    Verify(Ticket, Live),
    /// Point the route at that service and answer `Moved` or `NotMoved`.
    PointAt(Ticket, Live),
    /// Send that share of the clients to that service and answer `Moved` or `NotMoved`.
    Split(Ticket, Live, Share),
    /// Drain the service of that colour, which gets no share of the clients any more, and answer `Drained`.
    Drain(Ticket, Colour, Option<Instant>),
    /// The same of one that is bad: once drained it is stopped.
    Retire(Ticket, Colour, Option<Instant>),
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
    /// A share of the clients goes to a service beside the active one.
    Canary {
        /// What gets it.
        canary: Live,
        /// How much.
        share: Share,
        /// What gets the rest.
        active: Live,
        /// Whose wish that was.
        by: Option<AskId>,
    },
    /// It gets none any more.
    CanaryEnded {
        /// What got the share.
        canary: Live,
        /// What gets everything.
        active: Live,
        /// What is wrong with it, if that is why.
        bad: Option<Failure>,
        /// Whose wish that was.
        by: Option<AskId>,
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
    /// The old connections are gone, and the new service is watched for so much longer.
    Baking(Live, Duration),
    /// The new service has proved itself.
    Baked(Live),
    /// The new service failed in its bake: traffic goes back.
    Bad(Live, Failure),
    /// The active service, which had proved itself, keeps ending: traffic goes to the other one, which is healthy.
    KeepsEnding(Live, Failure),
    /// The active or the warm service ended by itself; its supervisor starts it again.
    Exited(Live, Exit),
    /// The active service is not healthy any more. It stays active.
    Unhealthy(Live, Failure),
    /// It is again.
    Healthy(Live, String),
}
