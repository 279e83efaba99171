//! What of a deployment survives a restart.

use super::{Deployment, Live, Phase, Stage, Way, inactive_of};
use crate::model::health::Failure;
use crate::model::release::ReleaseId;
use crate::model::share::Plan;

/// What of a deployment survives a restart. Loading it is the restart policy: an attempt that was not
/// finished is `wanted` again, and a switch that was decided has happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// What gets the traffic.
    pub active: Option<Live>,
    /// What the other service holds, and why it failed if it did.
    pub standby: Option<(ReleaseId, Option<Failure>)>,
    /// What is to be brought up.
    pub wanted: Option<ReleaseId>,
    /// Whether what is active still has to prove itself.
    pub baking: bool,
    /// The canary in the standby, and how it goes on.
    pub canary: Option<Plan>,
}

impl Deployment {
    /// What is to be on disk before the next command is carried out.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let warm = |release: ReleaseId| Some((release, None));
        let (active, standby) = match &self.phase {
            Phase::Vacant { standby } => (None, standby.saved()),
            Phase::Trying { active, .. } => (*active, None),
            Phase::Steady { active, standby } => (Some(*active), standby.saved()),
            Phase::Switching { from, to, stage: Stage::Verifying, .. } => (*from, warm(*to)),
            Phase::Switching { from, to, way, .. } => (
                Some(Live { colour: inactive_of(*from), release: *to }),
                from.map(|from| match way {
                    Way::Fallen { failure, .. } => (from.release, Some(failure.clone())),
                    Way::Forth | Way::Part(_) | Way::Back(_) => (from.release, None),
                }),
            ),
            Phase::Draining { active, old, bad, .. } => (Some(*active), Some((*old, bad.clone()))),
            Phase::Canary { active, canary: other, .. } | Phase::Baking { active, old: other, .. } => {
                (Some(*active), warm(*other))
            }
        };
        Saved {
            active,
            standby,
            wanted: self.wanted_after_restart(),
            baking: self.bakes_after_restart(),
            canary: self.canary().map(|(_, plan)| plan.clone()),
        }
    }

    /// What is to be brought up after a restart: a newer upload that waits for a candidate rather than that.
    fn wanted_after_restart(&self) -> Option<ReleaseId> {
        self.queued().or(match &self.phase {
            Phase::Trying { candidate, .. } => Some(candidate.release),
            _ => None,
        })
    }

    fn bakes_after_restart(&self) -> bool {
        match &self.phase {
            Phase::Switching { stage: Stage::Verifying, way: Way::Back(bake), .. } => bake.is_some(),
            Phase::Switching { from: Some(_), stage: Stage::Moving, way: Way::Forth, .. } => self.bakes(),
            _ => self.is_baking(),
        }
    }
}
