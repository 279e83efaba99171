//! Stand-ins for the two seams, in memory. `tests/contract` runs the same cases over them as over the real ones.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dorc::model::app::{AppName, Service, ServiceId};
use dorc::model::colour::{ByColour, Colour};
use dorc::model::health::Exit;
use dorc::model::hooks::Hook;
use dorc::model::release::ReleaseId;
use dorc::model::share::Share;
use dorc::routing::{Canary, Course, Route, Target, Which};
use dorc::services::{Exited, Finished, Running, ServiceError, Services};
use tokio::sync::mpsc;

/// A route without sockets. Its clones are the same route, so it can outlive an engine.
#[derive(Clone, Default)]
pub struct FakeRoute(Arc<Mutex<RouteState>>);

#[derive(Default)]
struct RouteState {
    course: Course,
    open: ByColour<Vec<(u64, bool)>>,
    number: u64,
    hangs: bool,
}

impl FakeRoute {
    fn state(&self) -> MutexGuard<'_, RouteState> {
        self.0.lock().unwrap()
    }

    /// A client comes; `busy`: it waits for an answer. `None`: it is held.
    pub fn connect(&self, busy: bool) -> Option<FakeClient> {
        self.connect_from(Ipv4Addr::LOCALHOST.into(), busy)
    }

    /// As [`connect`](Self::connect), from that address.
    pub fn connect_from(&self, address: IpAddr, busy: bool) -> Option<FakeClient> {
        let mut state = self.state();
        let colour = state.course.of(address)?.colour;
        state.number += 1;
        let number = state.number;
        state.open[colour].push((number, busy));
        Some(FakeClient { route: self.clone(), colour, number })
    }

    /// What gets a share of the clients.
    pub fn canary(&self) -> Option<(Colour, Share)> {
        self.state().course.canary.map(|canary| (canary.target.colour, canary.share))
    }

    /// From now on it does not do what it is told, and does not answer.
    pub fn hang(&self, hangs: bool) {
        self.state().hangs = hangs;
    }
}

/// A connection through a [`FakeRoute`]; dropping it closes it.
pub struct FakeClient {
    route: FakeRoute,
    pub colour: Colour,
    number: u64,
}

impl FakeClient {
    pub fn is_open(&self) -> bool {
        self.route.state().open[self.colour].iter().any(|(number, _)| *number == self.number)
    }
}

impl Drop for FakeClient {
    fn drop(&mut self) {
        self.route.state().open[self.colour].retain(|(number, _)| *number != self.number);
    }
}

impl Route for FakeRoute {
    async fn point_at(&self, target: Option<Target>) -> io::Result<()> {
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        state.course = state.course.point_at(target);
        Ok(())
    }

    async fn split(&self, canary: Option<Canary>) -> io::Result<()> {
        let mut state = self.state();
        state.course = state.course.split(canary);
        Ok(())
    }

    async fn hold(&self, time: Option<Duration>) -> io::Result<()> {
        let mut state = self.state();
        state.course = state.course.hold(time.is_some());
        Ok(())
    }

    fn pointing_at(&self) -> Option<Target> {
        self.state().course.target
    }

    async fn open_connections(&self, colour: Colour) -> usize {
        self.state().open[colour].len()
    }

    async fn close(&self, colour: Colour, which: Which) -> usize {
        let open = &mut self.state().open[colour];
        let before = open.len();
        open.retain(|(_, busy)| *busy && which != Which::All);
        before - open.len()
    }
}

/// Runs services in memory. What a service does stands in the file `behaviour` of its release: nothing special,
/// `exit 3` at its start, `deaf` (it listens on no port), `hang` (its start does not end), or `stubborn` (its stop takes
/// [`STUBBORN`]). A program that is not there can't be started. It outlives engines, as systemd does.
#[derive(Default)]
pub struct FakeServices(Mutex<Machine>);

#[derive(Default)]
struct Machine {
    running: HashMap<ServiceId, Process>,
    listeners: HashMap<AppName, Vec<mpsc::Sender<Exited>>>,
    calls: Vec<String>,
    reloads: usize,
    asked: usize,
}

struct Process {
    release: ReleaseId,
    env: Vec<(String, String)>,
    port: Option<Port>,
    restarts: u32,
    stubborn: bool,
}

/// What a supervisor waits before it kills.
pub const STUBBORN: Duration = Duration::from_secs(30);

/// A port that takes connections, and closes them at once, until it is dropped.
struct Port(TcpListener);

impl Port {
    fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let accepting = listener.try_clone()?;
        std::thread::spawn(move || while accepting.accept().is_ok() {});
        Ok(Self(listener))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both).unwrap();
    }
}

impl FakeServices {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }

    /// What was started, ended, stopped and removed, in order: `start green-web r1-3f9a2c1`.
    pub fn calls(&self) -> Vec<String> {
        self.machine().calls.clone()
    }

    /// How often it was asked what runs.
    pub fn asked(&self) -> usize {
        self.machine().asked
    }

    /// The value that a running service has for a variable.
    pub fn env(&self, id: &ServiceId, name: &str) -> Option<String> {
        let machine = self.machine();
        let env = &machine.running.get(id)?.env;
        env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// The service ends by itself; its supervisor starts it again.
    pub fn crash(&self, id: &ServiceId) {
        let mut machine = self.machine();
        if let Some(process) = machine.running.get_mut(id) {
            process.restarts += 1;
            let exit = Exit { how: "killed by SIGKILL".into(), after: None };
            for listener in machine.listeners.get(&id.app).into_iter().flatten() {
                let _ = listener.try_send(Exited { id: id.clone(), exit: exit.clone() });
            }
        }
    }

    /// The service goes on running and does not answer any more.
    pub fn sicken(&self, id: &ServiceId) {
        if let Some(process) = self.machine().running.get_mut(id) {
            process.port = None;
        }
    }

    /// The host goes down: nothing runs any more, and nobody is told.
    pub fn power_off(&self) {
        self.machine().running.clear();
    }

    async fn finish(&self, id: &ServiceId) {
        if self.machine().running.get(id).is_some_and(|process| process.stubborn) {
            tokio::time::sleep(STUBBORN).await;
        }
        self.machine().running.remove(id);
    }
}

impl Services for FakeServices {
    async fn start(&self, service: &Service) -> Result<(), ServiceError> {
        self.finish(&service.id).await;
        self.machine().calls.push(format!("start {} {}", service.id, service.release));
        let failed = |how: &str| ServiceError::Failed(Exit { how: how.into(), after: None });
        if !std::path::Path::new(&service.start[0]).exists() {
            return Err(failed("it can't be executed"));
        }
        let behaviour = fs::read_to_string(service.dir.join("behaviour")).unwrap_or_default();
        match behaviour.trim() {
            "hang" => std::future::pending::<()>().await,
            "exit 3" => return Err(failed("exit status 3")),
            _ => {}
        }
        let port = (behaviour.trim() != "deaf").then(|| service.env.get("PORT")).flatten();
        let port = port.and_then(|port| Port::listen(port.parse().unwrap()).ok());
        let env = service.env.clone().into_iter().collect();
        let stubborn = behaviour.trim() == "stubborn";
        let process = Process { release: service.release, env, port, restarts: 0, stubborn };
        self.machine().running.insert(service.id.clone(), process);
        Ok(())
    }

    async fn end(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.machine().calls.push(format!("end {id}"));
        self.finish(id).await;
        Ok(())
    }

    async fn stop(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.machine().calls.push(format!("stop {id}"));
        self.finish(id).await;
        Ok(())
    }

    async fn remove(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.machine().calls.push(format!("remove {id}"));
        self.finish(id).await;
        Ok(())
    }

    async fn reload(&self, _: &Service) -> Result<(), ServiceError> {
        self.machine().reloads += 1;
        Ok(())
    }

    async fn run(&self, hook: Hook, service: &Service) -> Result<Finished, ServiceError> {
        let words = service.start.join(" ");
        self.machine().calls.push(format!("{hook} {} {} {words}", service.id, service.release));
        let (failure, line) = match service.start[0].as_str() {
            "/false" => (Some(Exit { how: "exit status 1".into(), after: None }), "no"),
            _ => (None, "yes"),
        };
        Ok(Finished { failure, lines: vec![line.into()] })
    }

    async fn running(&self, id: &ServiceId) -> Result<Option<Running>, ServiceError> {
        let running = {
            let mut machine = self.machine();
            machine.asked += 1;
            machine.running.get(id).map(|process| Running {
                release: Some(process.release),
                main_pid: Some(std::process::id()),
                restarts: process.restarts,
            })
        };
        // What is told may be over when it arrives.
        tokio::task::yield_now().await;
        Ok(running)
    }

    fn exits(&self, app: &AppName) -> mpsc::Receiver<Exited> {
        let (sender, receiver) = mpsc::channel(16);
        self.machine().listeners.entry(app.clone()).or_default().push(sender);
        receiver
    }

    async fn last_lines(&self, id: &ServiceId, _: usize) -> Vec<String> {
        vec![format!("{id} speaks")]
    }

    async fn listening_ports(&self, id: &ServiceId) -> Vec<u16> {
        let machine = self.machine();
        let port = machine.running.get(id).and_then(|process| process.port.as_ref());
        port.map(|port| port.0.local_addr().unwrap().port()).into_iter().collect()
    }

    async fn control_group(&self, _: &ServiceId) -> Option<PathBuf> {
        None
    }
}
