//! What an app is like at the moment: found out once for all who ask at the same time, however many they are.

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use super::task::Engine;
use super::{View, now};
use crate::model::app::ServiceId;
use crate::model::colour::{ByColour, Colour};
use crate::routing::Route;
use crate::services::Services;

/// Who wants to see what the app is like.
#[derive(Default)]
pub(super) struct Viewers {
    /// They came after the look that is under way had begun, which may have missed what they ask about.
    waiting: Vec<oneshot::Sender<View>>,
    look: Option<JoinHandle<()>>,
}

impl Viewers {
    pub(super) fn add(&mut self, viewer: oneshot::Sender<View>) {
        self.waiting.push(viewer);
    }

    /// Ready when a look is over; never where none is under way.
    pub(super) async fn looked(&mut self) {
        match &mut self.look {
            Some(look) => {
                let _: Result<(), JoinError> = look.await;
                self.look = None;
            }
            None => std::future::pending().await,
        }
    }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// Looks for all who wait, unless a look is under way.
    pub(super) fn look(&mut self) {
        if self.viewers.waiting.is_empty() || self.viewers.look.is_some() {
            return;
        }
        let viewers = std::mem::take(&mut self.viewers.waiting);
        let mut view = self.view();
        let world = self.world.clone();
        // What the world has to be asked for keeps nobody but the askers waiting.
        self.viewers.look = Some(tokio::spawn(async move {
            for colour in Colour::BOTH {
                let id = ServiceId { app: view.app.name.clone(), colour };
                view.connections[colour] = world.route.open_connections(colour).await;
                view.running[colour] = world.services.running(&id).await.unwrap_or_default();
            }
            for viewer in viewers {
                let _ = viewer.send(view.clone());
            }
        }));
    }

    /// As far as the engine knows by itself.
    fn view(&self) -> View {
        View {
            app: self.app.clone(),
            deployment: self.deployment.clone(),
            catalogue: self.state.catalogue.clone(),
            receiving: self.receiver.arrived(),
            running: ByColour::default(),
            ports: self.ports,
            connections: ByColour::default(),
            last_exits: self.last_exits.clone(),
            health: self.watch.as_ref().and_then(|watch| watch.last(self.deployment.active())),
            freeze: self.state.freeze.clone(),
            pause: self
                .pause
                .as_ref()
                .map(|pause| (pause.who.clone(), pause.until.saturating_duration_since(now()))),
        }
    }
}
