//! What of a deployment survives a restart.

use super::{Deployment, Live, Phase, Stage, Standby, inactive_of};
use crate::model::health::Failure;
use crate::model::release::ReleaseId;

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
}

impl Deployment {
    /// What is to be on disk before the next command is carried out.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let queued = self.queued();
        match &self.phase {
            Phase::Vacant { failed } => Saved {
                active: None,
                standby: failed.clone().map(|(release, failure)| (release, Some(failure))),
                wanted: queued,
            },
            Phase::Trying { active, candidate } => {
                // A newer upload that waits for this candidate is what will be wanted after a restart.
                Saved { active: *active, standby: None, wanted: queued.or(Some(candidate.release)) }
            }
            Phase::Steady { active, standby } => Saved {
                active: Some(*active),
                standby: match standby {
                    Standby::Empty => None,
                    Standby::Warm(release) => Some((*release, None)),
                    Standby::Failed(release, failure) => Some((*release, Some(failure.clone()))),
                },
                wanted: queued,
            },
            Phase::Switching { from, to, stage, .. } => match (stage, from) {
                (Stage::Verifying, Some(from)) => {
                    Saved { active: Some(*from), standby: Some((*to, None)), wanted: queued }
                }
                _ => Saved {
                    active: Some(Live { colour: inactive_of(*from), release: *to }),
                    standby: from.map(|from| (from.release, None)),
                    wanted: queued,
                },
            },
            Phase::Draining { active, old, .. } => {
                Saved { active: Some(*active), standby: Some((*old, None)), wanted: queued }
            }
        }
    }
}
