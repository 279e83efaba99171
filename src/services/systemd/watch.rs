//! The ends of an app's services, from systemd's signals.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use zbus::{Message, MessageStream, OwnedVariant};

use crate::model::app::ServiceId;
use crate::model::colour::{ByColour, Colour};
use crate::model::health::Exit;
use crate::services::unit::unit_name;
use crate::services::{Exited, ServiceError};

use super::bus::{self, Bus, SYSTEMD};
use super::outcome::Outcome;

/// How many ends wait for a slow reader.
pub(super) const QUEUE: usize = 32;
/// The pause before the bus is tried again when it was lost.
const PAUSE: Duration = Duration::from_secs(1);

/// What a service was told, so that an end that dorc asked for is not taken for a crash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// It is being started or stopped right now: what its ends mean is known afterwards.
    pub(super) busy: bool,
    /// Ends up to here, in microseconds of the monotonic clock, were asked for or told otherwise.
    pub(super) quiet_until: u64,
}

/// Tells the ends of both services of one app.
pub(super) struct Watcher {
    bus: Arc<Bus>,
    told: watch::Receiver<ByColour<Told>>,
    out: mpsc::Sender<Exited>,
    services: ByColour<Watched>,
    /// Ends while the service was busy, with their time.
    held: Vec<(u64, Exited)>,
    queue: VecDeque<Exited>,
}

/// What is known of one service.
#[derive(Debug)]
struct Watched {
    id: ServiceId,
    outcome: Outcome,
    /// The last end that was taken: when, and after how many restarts.
    last: (u64, u32),
    /// `None` until systemd was asked once.
    restarts: Option<u32>,
}

impl Watcher {
    /// Watches from `since` on, in microseconds of the monotonic clock.
    pub(super) fn new(
        bus: Arc<Bus>,
        ids: ByColour<ServiceId>,
        told: watch::Receiver<ByColour<Told>>,
        out: mpsc::Sender<Exited>,
        since: u64,
    ) -> Self {
        let watched =
            |id| Watched { id, outcome: Outcome::default(), last: (since, u32::MAX), restarts: None };
        let services = ByColour { blue: watched(ids.blue), green: watched(ids.green) };
        Self { bus, told, out, services, held: Vec::new(), queue: VecDeque::new() }
    }

    /// Until nobody listens any more.
    pub(super) async fn run(mut self) {
        while !self.out.is_closed() {
            match self.subscribe().await {
                Ok((blue, green)) => self.follow(blue, green).await,
                Err(error) => {
                    tracing::warn!("the ends of {} can't be watched: {error}", self.services.blue.id.app);
                }
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = self.out.closed() => {}
            }
        }
    }

    /// Subscribes first and asks then, so that nothing falls in between.
    async fn subscribe(&mut self) -> Result<(MessageStream, MessageStream), ServiceError> {
        let connection = self.bus.connection().await?;
        let blue = bus::changes(&connection, &unit_name(&self.services.blue.id)).await?;
        let green = bus::changes(&connection, &unit_name(&self.services.green.id)).await?;
        for colour in Colour::BOTH {
            let (bus, unit) = (self.bus.clone(), unit_name(&self.services[colour].id));
            bus.read(&unit, &[bus::SERVICE, bus::UNIT], |properties| self.take(colour, properties)).await?;
        }
        Ok((blue, green))
    }

    /// Until the connection or the reader is gone.
    async fn follow(&mut self, mut blue: MessageStream, mut green: MessageStream) {
        loop {
            self.settle();
            tokio::select! {
                message = blue.next() => match message {
                    Some(Ok(message)) => self.read(Colour::Blue, &message),
                    _ => return,
                },
                message = green.next() => match message {
                    Some(Ok(message)) => self.read(Colour::Green, &message),
                    _ => return,
                },
                room = has_room(&self.out), if !self.queue.is_empty() => match self.queue.pop_front() {
                    Some(exited) if room => drop(self.out.try_send(exited)),
                    _ => return,
                },
                changed = self.told.changed() => if changed.is_err() { return },
                () = self.out.closed() => return,
            }
        }
    }

    fn read(&mut self, colour: Colour, message: &Message) {
        let body = message.body();
        match body.deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>() {
            Ok((interface, changed, _)) if interface.starts_with(SYSTEMD) => self.take(colour, &changed),
            Ok(_) => {}
            Err(error) => tracing::warn!("a signal of systemd can't be read: {error}"),
        }
    }

    fn take(&mut self, colour: Colour, changed: &HashMap<String, OwnedVariant>) {
        let watched = &mut self.services[colour];
        watched.outcome.update(changed);
        // The properties of the service come first, those of the unit say what they amount to.
        if !changed.contains_key("SubState") {
            return;
        }
        if let Some((at, exit)) = watched.end() {
            self.held.push((at, Exited { id: watched.id.clone(), exit }));
        }
    }

    /// Passes on the ends whose meaning is known.
    fn settle(&mut self) {
        let told = *self.told.borrow_and_update();
        for (at, exited) in std::mem::take(&mut self.held) {
            let told = told[exited.id.colour];
            if told.busy {
                self.held.push((at, exited));
            } else if at > told.quiet_until {
                self.queue.push_back(exited);
            }
        }
        for surplus in [self.held.len(), self.queue.len()].map(|length| length.saturating_sub(QUEUE)) {
            if surplus > 0 {
                tracing::warn!("{surplus} ends of {} were too many to keep", self.services.blue.id.app);
            }
        }
        self.held.drain(..self.held.len().saturating_sub(QUEUE));
        self.queue.drain(..self.queue.len().saturating_sub(QUEUE));
    }
}

impl Watched {
    /// An end that was not taken before, and its time.
    fn end(&mut self) -> Option<(u64, Exit)> {
        let Outcome { restarts, exited, started, .. } = self.outcome;
        let known = self.restarts.replace(restarts);
        if self.outcome.ended() {
            if exited <= self.last.0 && exited != 0 {
                return None;
            }
            let at = if exited == 0 { super::monotonic_now() } else { exited };
            if exited == 0 && self.last.1 == restarts {
                return None;
            }
            self.last = (at, restarts);
            return Some((at, self.outcome.exit()));
        }
        // It was started again, and the signal of its end got lost, or came with that of its start.
        let unseen = known.is_some_and(|known| restarts > known) && started > self.last.0;
        if unseen && self.last.1 != restarts && self.last.1 != restarts - 1 {
            self.last = (started, restarts);
            let how = "it ended, and systemd started it again before it could be asked how".into();
            return Some((started, Exit { how, after: None }));
        }
        None
    }
}

/// Waits until the reader takes one more; this is the only sender. `false`: it never will.
async fn has_room(out: &mpsc::Sender<Exited>) -> bool {
    out.reserve().await.is_ok()
}
