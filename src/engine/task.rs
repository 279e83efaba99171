//! The loop of one app: events in, commands carried out.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::pause::Pause;
use super::perform::World;
use super::receive::Received;
use super::tell::{Waiter, next_gone};
use super::view::Viewers;
use super::vitals::Watch;
use super::{Message, Parts, Summary, Told, Wish, blocking, now, offer, recipe};
use crate::model::app::{App, ServiceId};
use crate::model::colour::{ByColour, Colour};
use crate::model::deployment::{AskId, Command, Deployment, Event, Live, Notice, Outcome, Wait};
use crate::model::health::{Exit, Failure};
use crate::model::hooks::Hook;
use crate::model::release::{Release, Verdict};
use crate::model::share::Share;
use crate::releases::inotify::Inotify;
use crate::releases::intake::{Intake, Seen};
use crate::releases::receive::Receiver;
use crate::releases::store::Store;
use crate::routing::{Canary, Route};
use crate::services::{Exited, Services};
use crate::state::{AppState, DORC, StateDir};

/// How long connections may still hold up the stop of a service whose drain was cut short; a part of the model's patience.
const LEFT_OVER: Duration = Duration::from_secs(15);

/// The engine of one app.
pub(super) struct Engine<R, S> {
    pub(super) app: Arc<App>,
    pub(super) world: World<R, S>,
    pub(super) store: Arc<Store>,
    pub(super) state_dir: StateDir,
    pub(super) inotify: Arc<Inotify>,
    pub(super) told: Told,
    pub(super) state: AppState,
    pub(super) ports: ByColour<u16>,
    pub(super) deployment: Deployment,
    pub(super) intake: Option<(Intake, mpsc::Receiver<Seen>)>,
    /// Whether the intake has not told yet what it found at its start.
    pub(super) first_look: bool,
    pub(super) storing: Option<JoinHandle<offer::Stored>>,
    /// What receives uploads that come by a command.
    pub(super) receiver: Arc<Receiver>,
    /// An upload that came by a command, and waits to be stored.
    pub(super) received: Option<Received>,
    /// Switches that were asked for while an upload was being stored.
    pub(super) held: Vec<(Wish, String, Wait, oneshot::Sender<Outcome>)>,
    pub(super) events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    exits: broadcast::Sender<(Colour, Exit)>,
    job: Option<AbortHandle>,
    /// What has to do with the world and is no job: ended with the engine.
    pub(super) errands: JoinSet<()>,
    /// The errand that starts the active service, and its colour.
    pub(super) starter: Option<(Colour, AbortHandle)>,
    pub(super) waiters: HashMap<AskId, Waiter>,
    pub(super) viewers: Viewers,
    /// Who wanted the move that is under way, and as what.
    pub(super) mover: (String, &'static str),
    pub(super) last_ask: AskId,
    pub(super) last_exits: ByColour<Option<(SystemTime, String)>>,
    /// What watches over the active service.
    pub(super) watch: Option<Watch>,
    /// New connections wait.
    pub(super) pause: Option<Pause>,
    pub(super) ended: Option<oneshot::Sender<()>>,
    summary: watch::Sender<Summary>,
}

impl<R: Route, S: Services> Engine<R, S> {
    pub(super) fn new(
        parts: Parts<R, S>,
        store: Arc<Store>,
        receiver: Arc<Receiver>,
        notices: broadcast::Sender<Notice>,
    ) -> (Self, watch::Receiver<Summary>) {
        let Parts { app, route, services, state_dir, mut state, taken_ports, inotify, told } = parts;
        let ports = app
            .service
            .ports
            .or(state.ports)
            .or_else(|| recipe::choose_ports(&app, &taken_ports))
            .unwrap_or_default();
        state.ports = Some(ports);
        let deployment = Deployment::new(recipe::policy(&app, &state), &state.saved, now());
        let (exits, _) = broadcast::channel(super::QUEUE);
        let (summary, seen) = watch::channel(Summary { active: deployment.active(), ports });
        let engine = Self {
            app: Arc::new(app),
            world: World { route: Arc::new(route), services, notices },
            store,
            state_dir,
            inotify,
            told,
            state,
            ports,
            deployment,
            intake: None,
            first_look: true,
            storing: None,
            receiver,
            received: None,
            held: Vec::new(),
            events: mpsc::channel(super::QUEUE),
            exits,
            job: None,
            errands: JoinSet::new(),
            starter: None,
            waiters: HashMap::new(),
            viewers: Viewers::default(),
            mover: (DORC.into(), "switch"),
            last_ask: 0,
            last_exits: ByColour::default(),
            watch: None,
            pause: None,
            ended: None,
            summary,
        };
        (engine, seen)
    }

    /// Recovers what was under way, then takes events until told to end.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut exits = self.world.services.exits(&self.app.name);
        self.recover().await;
        self.keep_watch();
        self.watch_uploads();
        while self.ended.is_none() {
            self.store_received().await;
            self.ask_held().await;
            self.look();
            self.sum_up();
            let (wake, pause) = (self.deployment.wake_at(), self.pause.as_ref().map(|pause| pause.until));
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.message(message).await,
                    None => break,
                },
                Some(event) = self.events.1.recv() => self.step(event).await,
                Some(exited) = exits.recv() => self.exited(exited).await,
                Some(seen) = next_seen(&mut self.intake), if self.storing.is_none() => self.seen(seen).await,
                Some(stored) = finished(&mut self.storing) => self.stored(stored).await,
                ask = next_gone(&mut self.waiters) => self.gone(ask).await,
                Some(_) = self.errands.join_next() => {}
                () = self.viewers.looked() => {}
                () = sleep_until(wake), if wake.is_some() => self.overdue().await,
                () = sleep_until(pause), if pause.is_some() => self.pause_over().await,
            }
        }
        self.abort_job();
        self.receiver.close().await;
        self.finish_storing().await;
        if let Some((intake, _)) = self.intake.take() {
            intake.stop().await;
        }
        if let Some(ended) = self.ended {
            // Whoever wanted the end may not wait for it.
            let _ = ended.send(());
        }
    }

    /// Time is up, unless the answer is there already: after a long write both may be.
    async fn overdue(&mut self) {
        if let Ok(event) = self.events.1.try_recv() {
            return self.step(event).await;
        }
        if self.deployment.overdue_at().is_some_and(|overdue| overdue <= now()) {
            self.abort_job();
        }
        self.step(Event::Tick).await;
    }

    /// What is being stored is on the disk, or was given up, before anybody else opens the store.
    pub(super) async fn finish_storing(&mut self) {
        if let Some(storing) = self.storing.take() {
            // What became of it is found when the upload is looked at again.
            let _ = storing.await;
        }
    }

    /// One event through the model, and what comes out of it.
    pub(super) async fn step(&mut self, event: Event) {
        let mut unwritten = None;
        for command in self.deployment.handle(event, now()) {
            match command {
                Command::Persist => unwritten = self.persist().await.err().map(not_written),
                Command::PointAt(ticket, live) => self.decided(ticket, live, unwritten.take()),
                Command::Split(ticket, live, share) => match unwritten.take() {
                    Some(why) => self.not_moved(ticket, why),
                    None => self.start_move(ticket, live, Some(share)),
                },
                command => self.carry_out(command).await,
            }
        }
        self.keep_watch();
    }

    /// Lets everybody know what is known at once.
    pub(super) fn sum_up(&self) {
        let summary = Summary { active: self.deployment.active(), ports: self.ports };
        self.summary.send_if_modified(|known| std::mem::replace(known, summary) != summary);
    }

    /// The deployment as the state says, for what was found at the start.
    pub(super) fn begin_anew(&mut self) {
        self.deployment = Deployment::new(recipe::policy(&self.app, &self.state), &self.state.saved, now());
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::MarkServed(release) => {
                self.state.catalogue.judge(release, Verdict::Good(SystemTime::now()));
            }
            Command::MarkFailed(release, failure) => self.mark_failed(release, failure),
            Command::MarkBad(release, failure) => {
                self.state.catalogue.judge(release, Verdict::Failed(failure));
            }
            Command::Try(ticket, live) => self.start_try(ticket, live),
            Command::Verify(ticket, live) => self.start_verify(ticket, live),
            Command::Persist | Command::PointAt(..) | Command::Split(..) => {}
            Command::Drain(ticket, colour, until) => {
                let world = self.world.clone();
                self.start_job(async move { Event::Drained(ticket, world.drain(colour, until).await) });
            }
            Command::Retire(ticket, colour, until) => {
                let (world, id) = (self.world.clone(), self.service_id(colour));
                self.start_job(async move { Event::Drained(ticket, world.retire(&id, until).await) });
            }
            Command::Tell(notice) => self.tell(notice).await,
            Command::Answer(ask, outcome) => self.answer(ask, outcome).await,
        }
    }

    /// One that was good before stays good: a release that fails as a way back is still worth keeping.
    fn mark_failed(&mut self, release: crate::model::release::ReleaseId, failure: Failure) {
        if self.state.catalogue.get(release).is_some_and(|release| release.served().is_none()) {
            self.state.catalogue.judge(release, Verdict::Failed(failure));
        }
    }

    fn start_try(&mut self, ticket: u64, live: Live) {
        if let Some((_, starter)) = self.starter.take_if(|(colour, _)| *colour == live.colour) {
            // It may be about to start what was active before, as the service that is replaced now.
            starter.abort();
        }
        let Some(release) = self.release(live) else { return self.unknown_release(ticket, live) };
        let question = self.question(&release, live.colour);
        let service = self.service(&release, live);
        let (world, store) = (self.world.clone(), self.store.clone());
        let [prepare, verify] = [Hook::Prepare, Hook::Verify].map(|hook| self.hook_of_candidate(hook, live));
        let exits = self.exits.clone();
        let until = now() + self.app.switch.drain.unwrap_or(LEFT_OVER).min(LEFT_OVER);
        self.start_job(async move {
            // Connections that outlived a daemon which died while it drained them.
            world.drain(live.colour, Some(until)).await;
            let bring_up = async {
                offer::fill_working_dir(store, &service).await?;
                world.run_hook(prepare).await?;
                // Ends that are told until now were those of the service before.
                let answer = world.bring_up(&service, &question, exits.subscribe()).await?;
                if let Err(failure) = world.run_hook(verify).await {
                    world.give_up(&service.id).await;
                    return Err(failure);
                }
                Ok(answer)
            };
            match bring_up.await {
                Ok(answer) => Event::Ready(ticket, answer),
                Err(failure) => Event::NotReady(ticket, failure),
            }
        });
    }

    fn start_verify(&mut self, ticket: u64, live: Live) {
        let Some(release) = self.release(live) else { return self.unknown_release(ticket, live) };
        let question = self.question(&release, live.colour);
        let (world, id) = (self.world.clone(), self.service_id(live.colour));
        self.start_job(async move {
            match world.verify(&id, &question).await {
                Ok(answer) => Event::Ready(ticket, answer),
                Err(failure) => Event::NotReady(ticket, failure),
            }
        });
    }

    /// Moves the route, if the decision is on disk. A way back is taken even so: it must not depend on a full disk.
    fn decided(&mut self, ticket: u64, live: Live, unwritten: Option<String>) {
        match unwritten {
            Some(why) if !self.deployment.is_rollback() => self.not_moved(ticket, why),
            _ => self.start_move(ticket, live, None),
        }
    }

    fn not_moved(&mut self, ticket: u64, why: String) {
        self.start_job(async move { Event::NotMoved(ticket, why) });
    }

    /// Gives all new connections to `live`, or a share of them.
    fn start_move(&mut self, ticket: u64, live: Live, share: Option<Share>) {
        let Some(release) = self.release(live) else {
            return self.not_moved(ticket, format!("the release store does not have {}", live.release));
        };
        let target = recipe::target(&release.recipe, live.colour);
        let world = self.world.clone();
        if share.is_none() {
            self.mover = self.find_mover();
        }
        self.start_job(async move {
            let moved = match share {
                None => world.point_at(target).await,
                Some(share) => world.split(Some(Canary { target, share })).await,
            };
            match moved {
                Ok(()) => Event::Moved(ticket),
                Err(why) => Event::NotMoved(ticket, why),
            }
        });
    }

    fn unknown_release(&mut self, ticket: u64, live: Live) {
        let failure = Failure::because(format!("the release store does not have {}", live.release));
        self.start_job(async move { Event::NotReady(ticket, failure) });
    }

    /// Starts a job in place of the one that is under way.
    fn start_job(&mut self, job: impl Future<Output = Event> + Send + 'static) {
        self.abort_job();
        let events = self.events.0.clone();
        let task = tokio::spawn(async move {
            let event = job.await;
            // The engine only goes away when it needs no answers any more.
            let _ = events.send(event).await;
        });
        self.job = Some(task.abort_handle());
    }

    pub(super) fn abort_job(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort();
        }
    }

    pub(super) fn release(&self, live: Live) -> Option<Release> {
        self.state.catalogue.get(live.release).cloned()
    }

    pub(super) fn service_id(&self, colour: Colour) -> ServiceId {
        ServiceId { app: self.app.name.clone(), colour }
    }

    /// Writes the state to disk. A failure is loud; the services and the route go on, and the next write tries
    /// again.
    pub(super) async fn persist(&mut self) -> io::Result<()> {
        self.state.saved = self.deployment.saved();
        let superfluous = self.state.catalogue.superfluous(self.app.release.keep, &self.deployment.held());
        let mut state = self.state.clone();
        for release in &superfluous {
            state.catalogue.forget(*release);
        }
        let (dir, store, catalogue) = (self.state_dir.clone(), self.store.clone(), state.catalogue.clone());
        let app = self.app.name.clone();
        let written = blocking(move || {
            dir.write(&state)?;
            // Nothing depends on it: what stays is deleted at the next start.
            for release in superfluous {
                if let Err(error) = store.delete(release).and_then(|()| dir.secrets().forget(release)) {
                    tracing::warn!(%app, %release, %error, "could not be deleted");
                }
            }
            Ok(())
        })
        .await;
        match &written {
            Ok(()) => self.state.catalogue = catalogue,
            Err(error) => {
                tracing::error!(app = %self.app.name, %error, "the state could not be written");
            }
        }
        written
    }

    async fn exited(&mut self, exited: Exited) {
        let Exited { id, exit } = exited;
        // No candidate may be coming up.
        let _ = self.exits.send((id.colour, exit.clone()));
        self.step(Event::Exited(id.colour, exit)).await;
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Wish { wish, who, wait, reply } => self.wish(wish, who, wait, reply).await,
            Message::Reload { who, reply } => self.reload(who, reply).await,
            Message::Freeze { why, who, reply } => {
                let _ = reply.send(self.freeze(why, who).await);
            }
            Message::Pause { time, who, reply } => {
                let result = match time {
                    Some(time) => self.pause(time, who).await,
                    None => self.resume(&who).await,
                };
                let _ = reply.send(result);
            }
            Message::View(reply) => self.viewers.add(reply),
            Message::Expected(reply) => {
                let _ = reply.send(recipe::upload(&self.app));
            }
            Message::Received(received) => self.received = Some(*received),
            Message::Update { app, who, reply } => {
                let _ = reply.send(self.update(*app, &who).await);
            }
            Message::Remove { purge, reply } => self.remove(purge, reply).await,
            Message::End(reply) => self.ended = Some(reply),
        }
    }
}

fn not_written(error: io::Error) -> String {
    format!("the decision could not be written to disk: {error}")
}

async fn next_seen(intake: &mut Option<(Intake, mpsc::Receiver<Seen>)>) -> Option<Seen> {
    match intake {
        Some((_, seen)) => match seen.recv().await {
            Some(seen) => Some(seen),
            None => {
                *intake = None;
                Some(Seen::Failed("the release directory can't be watched any more".into()))
            }
        },
        None => None,
    }
}

async fn finished(storing: &mut Option<JoinHandle<offer::Stored>>) -> Option<offer::Stored> {
    let handle = storing.as_mut()?;
    let stored = handle.await;
    *storing = None;
    // Whoever waits for one that broke off sees that by the end of its answer.
    Some(stored.unwrap_or_else(|error| (Err(error.to_string()), offer::Origin::Directory(None))))
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake.into()).await;
    }
}
