//! Uploads that come by a command: the bytes go past the engine, what was taken goes the way of all uploads.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::offer::{Origin, discard};
use super::task::Engine;
use super::{Ended, Handle, Message, recipe};
use crate::model::app::Promote;
use crate::model::deployment::{Phase, Standby, Upload};
use crate::model::release::{Digest, Label, ReleaseId, Verdict};
use crate::releases::receive::{ReceiveError, Session};
use crate::releases::store::Taken;
use crate::releases::upload;
use crate::routing::Route;
use crate::services::Services;

/// Why an upload by a command was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotReceived {
    /// Not now: another one is under way.
    #[error("{0}")]
    Busy(String),
    /// It is wrong, or the host could not do it; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

impl From<Ended> for NotReceived {
    fn from(ended: Ended) -> Self {
        Self::Refused(ended.to_string())
    }
}

impl From<ReceiveError> for NotReceived {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Busy => Self::Busy(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<upload::TakeError> for NotReceived {
    fn from(error: upload::TakeError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What became of an upload by a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The release.
    pub release: ReleaseId,
    /// What the user calls it.
    pub label: Option<Label>,
    /// How many files it has.
    pub files: u64,
    /// How large they are together, in bytes.
    pub bytes: u64,
    /// What happens to it now, for people.
    pub next: String,
}

/// What happens to an upload once it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It comes up, as everything that is uploaded.
    ComesUp,
    /// Nothing, until somebody asks for it.
    IsAskedFor,
}

/// An upload that is being received. When it is dropped, the same upload can go on where this one stopped.
#[derive(Debug)]
pub struct Receiving {
    handle: Handle,
    expected: upload::Upload,
    session: Session,
}

impl Handle {
    /// How many bytes of the upload with that digest are here already.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn received(&self, digest: Digest) -> Result<u64, Ended> {
        let expected = self.ask(Message::Expected).await?;
        Ok(self.receiver.received(&expected, digest).await)
    }

    /// Begins to receive the upload with that digest, or goes on with it at `offset`.
    ///
    /// # Errors
    /// Another one is being received, or this one can't go on there.
    pub async fn receive(&self, digest: Digest, offset: u64) -> Result<Receiving, NotReceived> {
        let expected = self.ask(Message::Expected).await?;
        let session = self.receiver.begin(expected.clone(), digest, offset).await?;
        Ok(Receiving { handle: self.clone(), expected, session })
    }
}

impl Receiving {
    /// Takes the next bytes, as soon as there is room for them.
    ///
    /// # Errors
    /// The upload was refused, or the host could not take it; then nothing of it is left.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), NotReceived> {
        Ok(self.session.push(bytes).await?)
    }

    /// All has come: makes it a release.
    ///
    /// # Errors
    /// As `push`, and when it is not what its digest says, or could not be stored.
    pub async fn finish(
        mut self,
        label: Option<Label>,
        then: Then,
        who: String,
    ) -> Result<Uploaded, NotReceived> {
        let taken = self.session.finish().await?;
        let (reply, answer) = oneshot::channel();
        let received = Received { taken, expected: self.expected, label, then, who, reply };
        self.handle.send(Message::Received(Box::new(received))).await?;
        let ended = || NotReceived::Refused("the upload could not be stored: it broke off".into());
        answer.await.map_err(|_| ended())?.map_err(NotReceived::Refused)
    }
}

/// An upload that was received, and is to be stored.
pub(super) struct Received {
    taken: Taken,
    expected: upload::Upload,
    label: Option<Label>,
    then: Then,
    who: String,
    reply: oneshot::Sender<Result<Uploaded, String>>,
}

/// Someone who waits until what he uploaded is stored.
pub(super) struct Waiting {
    pub(super) who: String,
    pub(super) label: Option<Label>,
    pub(super) then: Then,
    /// What was known of uploads before.
    pub(super) before: Upload,
    reply: oneshot::Sender<Result<Uploaded, String>>,
}

impl Waiting {
    /// Says why not, and what is known of uploads again.
    pub(super) fn refuse(self, why: String) -> Upload {
        // Whoever asked may have gone; so below.
        let _ = self.reply.send(Err(why));
        self.before
    }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// Stores what was received, once its turn has come.
    pub(super) async fn store_received(&mut self) {
        if self.storing.is_some() {
            return;
        }
        let Some(Received { taken, expected, label, then, who, reply }) = self.received.take() else {
            return;
        };
        let waiting = Waiting { who, label, then, before: self.deployment.upload().clone(), reply };
        if expected != recipe::upload(&self.app) {
            discard(taken);
            waiting.refuse("the app file was changed while it was being uploaded; upload it again".into());
            return;
        }
        self.store_taken(taken, Origin::Command(waiting)).await;
    }

    /// Answers whoever uploaded it by a command.
    pub(super) fn tell_uploaded(&self, id: ReleaseId, origin: Origin) {
        let (Origin::Command(waiting), Some(release)) = (origin, self.state.catalogue.get(id)) else {
            return;
        };
        let _ = waiting.reply.send(Ok(Uploaded {
            release: id,
            label: release.label.clone(),
            files: release.files,
            bytes: release.bytes,
            next: self.next_of(id, &release.verdict, waiting.then),
        }));
    }

    /// What happens now to a release that was uploaded.
    fn next_of(&self, id: ReleaseId, verdict: &Verdict, then: Then) -> String {
        let app = &self.app.name;
        let colour = self.deployment.inactive_colour();
        if let Some(active) = self.deployment.active().filter(|live| live.release == id) {
            return format!("it is active already, in {}", active.colour);
        }
        if then == Then::IsAskedFor {
            return format!("it comes up with: dorc deploy {app} --release {id}");
        }
        if self.deployment.queued() == Some(id) {
            return match &self.state.freeze {
                Some(freeze) => format!("it waits: {freeze}"),
                None => "it waits until the last switch has settled".into(),
            };
        }
        match self.deployment.phase() {
            Phase::Steady { standby: Standby::Warm(release), .. } if *release == id => {
                format!("it is ready in {colour}: dorc switch {app}")
            }
            Phase::Trying { active, candidate } if candidate.release == id => {
                if active.is_none() || self.app.switch.promote == Promote::Auto {
                    return format!("it comes up in {colour}, and gets the traffic once it is ready");
                }
                format!("it comes up in {colour}; once it is ready: dorc switch {app}")
            }
            _ => match verdict {
                Verdict::Failed(failure) => format!(
                    "it failed before and is not tried again by itself: {}; to try it: dorc deploy {app} --release {id}",
                    failure.reason
                ),
                _ => format!("dorc status {app} shows what becomes of it"),
            },
        }
    }
}
