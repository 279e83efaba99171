//! One run of a program under its guard, from its start until nothing of it is left.

use std::future::pending;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group};
use tokio::net::{UnixDatagram, unix::pipe};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::super::frames::{Frames, Order, Report};
use super::super::log::Log;
use super::super::{STOP_GRACE, proc};
use super::Arguments;
use super::program::{describe, exit_code, spawn, spawn_fresh};

/// How long the processes get after a SIGTERM when dorc is gone: their clients have lost their connections already.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);

/// How long a reload command may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// SIGKILL is sent again this often, to what was forked meanwhile.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// What SIGKILL has not ended by then can't be ended by this user.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How much output is taken at once, so that a chatty program does not keep the guard from its other duties.
const OUTPUT_BATCH: usize = 1 << 20;

/// A program and all that it started.
pub(super) struct Guard {
    frames: Frames,
    supervisor_gone: bool,
    signals: Signals,
    notify: Option<UnixDatagram>,
    output: pipe::Receiver,
    output_writer: PipeWriter,
    log: Log,
    env: Vec<String>,
    main: Pid,
    main_status: Option<u8>,
    helper: Option<Helper>,
    ending: Option<Ending>,
    terminated: bool,
}

struct Signals {
    child: SignalStream,
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: SignalStream,
}

/// A reload or stop command that runs.
struct Helper {
    pid: Pid,
    stops: bool,
    deadline: Instant,
}

/// How far the end has come.
enum Ending {
    /// Asked to end; killed at that instant.
    Asked(Instant),
    /// Killed, again and again.
    Killing { next: Instant, until: Instant },
}

enum Event {
    Children,
    Terminate,
    Order(Order),
    SupervisorGone,
    Output,
    Message(String),
    Deadline,
}

impl Guard {
    /// Starts the program and reports that; `None`: it could not be started, and that is reported.
    pub(super) async fn start(
        mut frames: Frames,
        arguments: &Arguments,
        mut env: Vec<String>,
        notify: Option<UnixDatagram>,
    ) -> io::Result<Option<Self>> {
        let signals = Signals {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let log = Log::open(&arguments.log)?;
        let (reader, output_writer) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        if let Some(name) = &arguments.notify {
            env.push(format!("NOTIFY_SOCKET={name}"));
        }
        let main = match spawn_fresh(&arguments.command, &env, &output_writer).await {
            Ok(main) => main,
            Err(reason) => {
                frames.send(Report::Failed(reason)).await?;
                return Ok(None);
            }
        };
        let pid = main.as_raw_nonzero().get().unsigned_abs();
        env.push(format!("MAINPID={pid}"));
        let mut guard = Self {
            frames,
            supervisor_gone: false,
            signals,
            notify,
            output,
            output_writer,
            log,
            env,
            main,
            main_status: None,
            helper: None,
            ending: None,
            terminated: false,
        };
        guard.report(Report::Started(pid)).await;
        Ok(Some(guard))
    }

    /// Goes on until nothing of the program is left; says with which status it ended.
    pub(super) async fn run(mut self) -> io::Result<u8> {
        loop {
            match self.next_event().await? {
                Event::Children => {
                    if !self.reap().await {
                        break;
                    }
                }
                Event::Terminate => self.end(None, STOP_GRACE).await,
                Event::Order(Order::Stop(command)) => self.end(command, STOP_GRACE).await,
                Event::Order(Order::Reload(command)) => self.reload(command).await,
                Event::Order(Order::Start(_)) => {}
                Event::SupervisorGone => {
                    self.supervisor_gone = true;
                    self.orphaned().await;
                }
                Event::Output => self.copy_output(pipe::Receiver::try_read),
                Event::Message(text) => {
                    if text.lines().any(|line| line == "READY=1") {
                        self.report(Report::Ready).await;
                    }
                }
                Event::Deadline => {
                    if !self.deadline_passed() {
                        break;
                    }
                }
            }
        }
        self.copy_output(read_now);
        Ok(self.main_status.unwrap_or(1))
    }

    async fn next_event(&mut self) -> io::Result<Event> {
        let deadline = self.deadline();
        Ok(tokio::select! {
            _ = self.signals.child.recv() => Event::Children,
            _ = self.signals.terminate.recv() => Event::Terminate,
            _ = self.signals.interrupt.recv() => Event::Terminate,
            _ = self.signals.hangup.recv() => Event::Terminate,
            order = self.frames.next(), if !self.supervisor_gone => {
                order.map_or(Event::SupervisorGone, Event::Order)
            }
            readable = self.output.readable() => {
                readable?;
                Event::Output
            }
            text = message(self.notify.as_ref()) => Event::Message(text?),
            () = at(deadline) => Event::Deadline,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let helper = self.helper.as_ref().map(|helper| helper.deadline);
        let ending = self.ending.as_ref().map(|ending| match ending {
            Ending::Asked(until) => *until,
            Ending::Killing { next, .. } => *next,
        });
        helper.into_iter().chain(ending).min()
    }

    /// Takes note of all that ended; false once no process is left.
    async fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status).await,
                Ok(None) | Err(Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
    }

    async fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.main && self.main_status.is_none() {
            self.main_status = Some(exit_code(status));
            // First what it wrote, so that whoever hears of its end finds its last words.
            self.copy_output(read_now);
            self.report(Report::Exited(describe(status))).await;
            self.end(None, STOP_GRACE).await;
        } else if let Some(helper) = self.helper.take_if(|helper| helper.pid == pid) {
            let failed = status.exit_status() != Some(0);
            match helper.stops {
                true if failed => self.terminate(),
                true => {}
                false if failed => {
                    let reason = format!("the reload command ended with {}", describe(status));
                    self.report(Report::Reloaded(Err(reason))).await;
                }
                false => self.report(Report::Reloaded(Ok(()))).await,
            }
        }
    }

    /// Asks all processes to end, and kills what is left after `grace`.
    async fn end(&mut self, command: Option<Vec<String>>, grace: Duration) {
        if self.ending.is_none() {
            self.ending = Some(Ending::Asked(Instant::now() + grace));
            match command {
                Some(command) => self.run_stop_command(&command, grace).await,
                None => self.terminate(),
            }
        } else if self.main_status.is_some() && !self.terminated {
            // The stop command ended the main process only.
            self.terminate();
        }
    }

    fn terminate(&mut self) {
        self.terminated = true;
        self.signal_all(Signal::TERM);
    }

    async fn run_stop_command(&mut self, command: &[String], grace: Duration) {
        match spawn(command, &self.env, &self.output_writer) {
            Ok(pid) => self.helper = Some(Helper { pid, stops: true, deadline: Instant::now() + grace }),
            Err(reason) => {
                self.note(&format!("dorc: the stop command: {reason}; SIGTERM instead\n"));
                self.terminate();
            }
        }
    }

    /// The supervisor is gone: there is nobody left to wait for.
    async fn orphaned(&mut self) {
        let until = Instant::now() + ORPHAN_GRACE;
        match &mut self.ending {
            None => self.end(None, ORPHAN_GRACE).await,
            Some(Ending::Asked(deadline)) => *deadline = until.min(*deadline),
            Some(Ending::Killing { .. }) => {}
        }
    }

    async fn reload(&mut self, command: Option<Vec<String>>) {
        let result = match command {
            _ if self.ending.is_some() => Err("it is ending".to_owned()),
            _ if self.helper.is_some() => Err("another reload is still running".to_owned()),
            Some(command) => match spawn(&command, &self.env, &self.output_writer) {
                Ok(pid) => {
                    self.helper =
                        Some(Helper { pid, stops: false, deadline: Instant::now() + RELOAD_TIMEOUT });
                    return;
                }
                Err(reason) => Err(reason),
            },
            None if proc::handles_sighup(self.main.as_raw_nonzero().get().unsigned_abs()) => {
                kill_process(self.main, Signal::HUP).map_err(|error| error.to_string())
            }
            None => Err(super::super::NO_SIGHUP.to_owned()),
        };
        self.report(Report::Reloaded(result)).await;
    }

    /// Kills what took too long; false once that is hopeless.
    fn deadline_passed(&mut self) -> bool {
        let now = Instant::now();
        if let Some(helper) = self.helper.as_ref().filter(|helper| helper.deadline <= now) {
            // It may have ended this moment; then there is nothing to kill.
            let _ = kill_process_group(helper.pid, Signal::KILL);
            // Its end is reported when it is reaped.
            let pid = helper.pid;
            self.helper = Some(Helper { pid, stops: helper.stops, deadline: now + KILL_LIMIT });
        }
        match self.ending {
            Some(Ending::Asked(until)) if until <= now => self.kill(now + KILL_LIMIT),
            Some(Ending::Killing { until, .. }) if until <= now => return false,
            Some(Ending::Killing { next, until }) if next <= now => self.kill(until),
            _ => {}
        }
        true
    }

    fn kill(&mut self, until: Instant) {
        self.ending = Some(Ending::Killing { next: Instant::now() + KILL_INTERVAL, until });
        self.signal_all(Signal::KILL);
    }

    /// Like systemd: every process of the service gets the signal, not only the first one.
    fn signal_all(&self, which: Signal) {
        let stop_command = self.helper.as_ref().filter(|helper| helper.stops && which == Signal::TERM);
        for pid in proc::descendants(std::process::id()) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|pid| stop_command.is_none_or(|helper| helper.pid != *pid)) {
                // It may have ended since the list was made.
                let _ = kill_process(pid, which);
            }
        }
    }

    fn copy_output(&mut self, read: fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>) {
        let mut buffer = [0; 16 << 10];
        let mut taken = 0;
        while taken < OUTPUT_BATCH {
            match read(&self.output, &mut buffer) {
                Ok(count @ 1..) => {
                    taken += count;
                    // A full disk must not stop a service: what can't be written is lost.
                    let _ = self.log.write(&buffer[..count]);
                }
                _ => return,
            }
        }
    }

    fn note(&mut self, line: &str) {
        let _ = self.log.write(line.as_bytes());
    }

    async fn report(&mut self, report: Report) {
        if !self.supervisor_gone && self.frames.send(report).await.is_err() {
            // Reading tells the same, at the next event.
        }
    }
}

/// Unlike `try_read` it finds what was written since the runtime last looked at the pipe.
fn read_now(output: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(output, buffer)?)
}

async fn message(socket: Option<&UnixDatagram>) -> io::Result<String> {
    match socket {
        Some(socket) => {
            let mut buffer = [0; 4096];
            let count = socket.recv(&mut buffer).await?;
            Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
        }
        None => pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
