//! The task of one service: runs it under a guard, and again when it ends by itself.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::frames::{Frames, Order, Report};
use super::settings::Settings;
use super::{STOP_GRACE, Status, lock};
use crate::model::health::Exit;
use crate::services::{Exited, Running, ServiceError};

/// The pause before the first restart; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After having been up for this long the pause starts small again.
const STEADY: Duration = Duration::from_secs(10);

/// How long a guard may take beyond the grace that it gives; then it is given up.
const GUARD_LIMIT: Duration = Duration::from_secs(10);

/// How a program ended that has nothing to complain of, as a guard puts it.
const SUCCESS: &str = "exit status 0";

/// What is asked of the task.
#[derive(Debug)]
pub(super) enum Request {
    /// End the service and then the task.
    Stop,
    /// Reload it, by this command or by SIGHUP, and answer.
    Reload(Option<Vec<String>>, oneshot::Sender<Result<(), String>>),
}

type Started = oneshot::Sender<Result<(), ServiceError>>;

/// One service that is kept up.
pub(super) struct Supervised {
    settings: Settings,
    status: Arc<Mutex<Status>>,
    exits: broadcast::Sender<Exited>,
    requests: mpsc::Receiver<Request>,
}

/// One run of it.
struct Run {
    process: Child,
    frames: Frames,
    deadline: Option<Instant>,
    pid: Option<u32>,
    started: Option<Instant>,
    ready: bool,
    told_to_stop: bool,
    end: Option<Exit>,
    reload: Option<oneshot::Sender<Result<(), String>>>,
}

/// Runs a program once, for no longer than its start may take; `None`: it ended with success.
pub(super) async fn run_to_its_end(settings: Settings) -> Option<Exit> {
    let limit = settings.service.start_timeout;
    let (requests, received) = mpsc::channel(1);
    let mut once = Supervised::new(settings, Arc::default(), broadcast::Sender::new(1), received);
    // That it has started is nobody's news.
    let (first, _) = oneshot::channel();
    let mut first = Some(first);
    let run = once.run_once(&mut first, 0);
    tokio::pin!(run);
    let end = tokio::select! {
        end = &mut run => end,
        () = sleep(limit) => {
            // The run takes it, as long as it has not just ended.
            let _ = requests.send(Request::Stop).await;
            run.await
        }
    };
    match end {
        Some(exit) if exit.how == SUCCESS => None,
        Some(exit) => Some(exit),
        None => Some(Exit {
            how: format!(
                "it was ended after {}, which is all that it may take",
                humantime::format_duration(limit)
            ),
            after: None,
        }),
    }
}

impl Supervised {
    pub(super) fn new(
        settings: Settings,
        status: Arc<Mutex<Status>>,
        exits: broadcast::Sender<Exited>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self { settings, status, exits, requests }
    }

    /// Runs the service until it is told to stop, or until its first start failed; `first` hears of that start.
    pub(super) async fn run(mut self, first: Started) {
        let mut first = Some(first);
        let mut pause = FIRST_PAUSE;
        let mut restarts = 0;
        loop {
            self.set_running(None, restarts);
            let Some(end) = self.run_once(&mut first, restarts).await else { break };
            if let Some(first) = first.take() {
                self.set_ended();
                // Nobody may be waiting for it any more.
                let _ = first.send(Err(ServiceError::Failed(end)));
                return;
            }
            if end.after.is_some_and(|after| after >= STEADY) {
                pause = FIRST_PAUSE;
            }
            self.set_running(None, restarts);
            if self.stopped_within(pause).await {
                break;
            }
            pause = LONGEST_PAUSE.min(pause * 2);
            restarts += 1;
        }
        self.set_ended();
    }

    fn set_ended(&self) {
        let mut status = lock(&self.status);
        status.running = None;
        status.guard_pid = None;
    }

    fn set_running(&self, main_pid: Option<u32>, restarts: u32) {
        let release = Some(self.settings.service.release);
        lock(&self.status).running = Some(Running { release, main_pid, restarts });
    }

    /// Waits before a restart; true when it is not to be.
    async fn stopped_within(&mut self, pause: Duration) -> bool {
        let restart = sleep(pause);
        tokio::pin!(restart);
        loop {
            tokio::select! {
                () = &mut restart => return false,
                request = self.requests.recv() => match request {
                    Some(Request::Reload(_, answer)) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(Err("it is being started again".to_owned()));
                    }
                    Some(Request::Stop) | None => return true,
                },
            }
        }
    }

    /// One run, from its start until nothing is left of it; `None`: it was told to stop.
    async fn run_once(&mut self, first: &mut Option<Started>, restarts: u32) -> Option<Exit> {
        let mut run = match Run::start(&self.settings).await {
            Ok(run) => run,
            Err(how) => {
                let end = Exit { how, after: None };
                self.publish(first, &end);
                return Some(end);
            }
        };
        lock(&self.status).guard_pid = run.process.id();
        loop {
            let deadline = run.deadline;
            tokio::select! {
                report = run.frames.next() => match report {
                    Some(report) => self.take(report, &mut run, first, restarts),
                    None => break,
                },
                request = self.requests.recv() => match request {
                    Some(Request::Reload(command, answer)) => run.reload(command, answer).await,
                    Some(Request::Stop) | None => {
                        run.told_to_stop = true;
                        run.stop(self.settings.service.stop.clone()).await;
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if run.ready || run.told_to_stop || run.end.is_some() {
                        break;
                    }
                    run.end = Some(run.exit(self.not_ready()));
                    run.stop(None).await;
                }
            }
        }
        let told_to_stop = run.told_to_stop;
        let known = run.end.is_some();
        let end = run.finish().await;
        lock(&self.status).guard_pid = None;
        if told_to_stop {
            return None;
        }
        if !known {
            self.publish(first, &end);
        }
        Some(end)
    }

    fn not_ready(&self) -> String {
        let limit = self.settings.service.start_timeout.as_secs_f64();
        format!("it did not say within {limit:.1} s that it is ready (READY=1 to $NOTIFY_SOCKET)")
    }

    fn take(&self, report: Report, run: &mut Run, first: &mut Option<Started>, restarts: u32) {
        match report {
            Report::Started(pid) => {
                run.pid = Some(pid);
                run.started = Some(Instant::now());
                self.set_running(Some(pid), restarts);
                if !self.settings.service.notify {
                    run.become_ready(first);
                }
            }
            Report::Ready => run.become_ready(first),
            Report::Failed(how) => {
                run.end = Some(run.exit(how));
                self.ended(run, first, restarts);
            }
            Report::Exited(how) => {
                run.pid = None;
                // A start that took too long has its reason already.
                if run.end.is_none() {
                    run.end = Some(run.exit(how));
                }
                self.ended(run, first, restarts);
            }
            Report::Reloaded(result) => {
                if let Some(answer) = run.reload.take() {
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
            }
        }
    }

    fn ended(&self, run: &mut Run, first: &Option<Started>, restarts: u32) {
        run.deadline = Some(Instant::now() + STOP_GRACE + GUARD_LIMIT);
        self.set_running(None, restarts);
        if let Some(end) = run.end.as_ref().filter(|_| !run.told_to_stop) {
            self.publish(first, end);
        }
    }

    /// Tells that it ended by itself, unless that is the answer to its first start.
    fn publish(&self, first: &Option<Started>, exit: &Exit) {
        if first.is_none() {
            let exited = Exited { id: self.settings.service.id.clone(), exit: exit.clone() };
            // An app that nobody listens to loses nothing.
            let _ = self.exits.send(exited);
        }
    }
}

impl Run {
    /// Starts a guard and tells it to start the program.
    async fn start(settings: &Settings) -> Result<Self, String> {
        let unable = |error: std::io::Error| format!("its guard process could not be started: {error}");
        let (near, far) = UnixStream::pair().map_err(unable)?;
        let far = OwnedFd::from(far.into_std().map_err(unable)?);
        let mut command = settings.guard();
        command.stdin(far).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(unable)?;
        // Its copy of the guard's end goes with it: else the guard's death would not close the socket.
        drop(command);
        let mut frames = Frames::new(near);
        frames.send(Order::Start(settings.environment())).await.map_err(unable)?;
        let deadline = Some(Instant::now() + settings.service.start_timeout);
        Ok(Self {
            process,
            frames,
            deadline,
            pid: None,
            started: None,
            ready: false,
            told_to_stop: false,
            end: None,
            reload: None,
        })
    }

    fn exit(&self, how: String) -> Exit {
        Exit { how, after: self.started.map(|started| started.elapsed()) }
    }

    fn become_ready(&mut self, first: &mut Option<Started>) {
        self.ready = true;
        if !self.told_to_stop && self.end.is_none() {
            self.deadline = None;
            if let Some(first) = first.take() {
                // Nobody may be waiting for it any more.
                let _ = first.send(Ok(()));
            }
        }
    }

    async fn stop(&mut self, command: Option<Vec<String>>) {
        self.deadline = Some(Instant::now() + STOP_GRACE + GUARD_LIMIT);
        if self.frames.send(Order::Stop(command)).await.is_err() {
            tracing::debug!("the guard was gone before it was told to stop");
        }
    }

    async fn reload(&mut self, command: Option<Vec<String>>, answer: oneshot::Sender<Result<(), String>>) {
        if self.reload.is_some() {
            // Whoever asked may have gone.
            let _ = answer.send(Err("another reload is still running".to_owned()));
        } else if self.frames.send(Order::Reload(command)).await.is_ok() {
            self.reload = Some(answer);
        }
    }

    /// Waits for the guard's end, and sees to it that nothing is left where the guard could not; says how it ended.
    async fn finish(mut self) -> Exit {
        // Closing the socket is the order to end that no guard misses.
        let (started, pid) = (self.started, self.pid);
        drop(self.frames);
        let status = match tokio::time::timeout(GUARD_LIMIT, self.process.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            _ => {
                // It is reaped by the runtime.
                let _ = self.process.start_kill();
                "it did not end".to_owned()
            }
        };
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // Whoever killed the guard left the program without one.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.end.unwrap_or_else(|| Exit {
            how: format!("its guard process ended: {status}"),
            after: started.map(|started| started.elapsed()),
        })
    }
}
