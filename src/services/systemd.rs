//! systemd over D-Bus.
//!
//! Each service is a unit of its own that lives on without dorc. What a command does is told in jobs, whose results are
//! waited for; what happens by itself is told in signals. Nothing is polled.

mod bus;
mod control_group;
mod files;
mod hooks;
mod install;
mod journal;
mod outcome;
mod proxies;
mod sockets;
mod state_directory;
mod verify;
mod watch;
mod working_dir;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{MutexGuard, mpsc, watch as channel};
use tokio::task::{JoinSet, spawn_blocking};

use crate::model::app::{AppName, Service, ServiceId};
use crate::model::colour::{ByColour, Colour};
use crate::model::hooks::Hook;

use super::unit::{self, Places, STOP_TIMEOUT, unit_name};
use super::{Exited, Finished, Running, ServiceError, Services};
use bus::{Bus, Verb, is_no_such_unit, supervisor};
use outcome::Outcome;
use verify::Meant;
use watch::{Told, Watcher};

/// What systemd may need beyond a timeout that it enforces itself.
const MARGIN: Duration = Duration::from_secs(15);
/// How long a reload command may run.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// systemd as what runs services.
#[derive(Debug)]
pub struct Systemd {
    bus: Arc<Bus>,
    places: Places,
    apps: Mutex<HashMap<AppName, Arc<Commands>>>,
    /// The tasks behind `exits`; they end with their readers, or with this.
    watchers: Mutex<JoinSet<()>>,
    /// The connections that they use.
    watching: Mutex<Vec<Arc<Bus>>>,
}

/// What the services of one app are being told.
#[derive(Debug)]
struct Commands {
    turn: ByColour<tokio::sync::Mutex<()>>,
    told: channel::Sender<ByColour<Told>>,
}

/// One command to one service. Until it is dropped, ends of the service are held back; then those up to `quiet_until`
/// are taken as the command's doing.
struct Command<'a> {
    _turn: MutexGuard<'a, ()>,
    told: &'a channel::Sender<ByColour<Told>>,
    colour: Colour,
    quiet_until: Option<u64>,
}

impl Commands {
    async fn begin(&self, colour: Colour) -> Command<'_> {
        let turn = self.turn[colour].lock().await;
        self.told.send_modify(|told| told[colour].busy = true);
        Command { _turn: turn, told: &self.told, colour, quiet_until: None }
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        let quiet_until = self.quiet_until.unwrap_or_else(monotonic_now);
        self.told.send_modify(|told| told[self.colour] = Told { busy: false, quiet_until });
    }
}

impl Systemd {
    /// Connects to the systemd of this host.
    ///
    /// # Errors
    /// It is not reached over the system bus.
    pub async fn connect(places: Places) -> Result<Self, ServiceError> {
        let bus = Arc::new(Bus::default());
        drop(bus.connection().await?);
        let watching = Mutex::new(vec![Arc::clone(&bus)]);
        Ok(Self { bus, places, apps: Mutex::default(), watchers: Mutex::default(), watching })
    }

    /// The processes of the service.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn processes(&self, id: &ServiceId) -> Result<Vec<u32>, ServiceError> {
        match self.bus.manager().await?.get_unit_processes(&unit_name(id)).await {
            Ok(processes) => Ok(processes.into_iter().map(|(_, pid, _)| pid).collect()),
            Err(error) if is_no_such_unit(&error) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn commands(&self, app: &AppName) -> Arc<Commands> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Commands { turn: ByColour::default(), told: channel::Sender::new(ByColour::default()) })
        };
        Arc::clone(apps.entry(app.clone()).or_insert_with(new))
    }

    /// A connection that has room for one more watcher.
    fn bus_for_watcher(&self) -> Arc<Bus> {
        let mut buses = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bus) = buses.iter().find(|bus| Arc::strong_count(bus) <= bus::WATCHED_APPS) {
            return Arc::clone(bus);
        }
        let bus = Arc::new(Bus::default());
        buses.push(Arc::clone(&bus));
        bus
    }

    /// Writes what `service` needs, and has systemd load it.
    async fn install(&self, service: &Service) -> Result<(), ServiceError> {
        let text = refused(unit::render(service, &self.places))?;
        let environment = refused(unit::environment(service))?;
        let (unit_file, env_file) = (self.places.unit_file(&service.id), self.places.env_file(&service.id));
        let (owned, places) = (service.clone(), self.places.clone());
        let changed = blocking(move || {
            working_dir::prepare(&owned, &places)?;
            if files::set_aside(&unit_file, is_ours)? {
                tracing::warn!("{} was not dorc's, it is kept beside as .before-dorc", unit_file.display());
            }
            if let Some(dir) = env_file.parent() {
                files::make_dir(dir)?;
            }
            // Written each time: its age is that of the start, which tells the journal's lines of this start.
            files::write(&env_file, &environment, 0o600)?;
            files::write_if_changed(&unit_file, &text, 0o644)
        })
        .await
        .map_err(|error| supervisor(format!("the files of {} can't be written: {error}", service.id)))?;
        let name = unit_name(&service.id);
        let enabled = !self.bus.manager().await?.enable_unit_files(&[&name], false, true).await?.1.is_empty();
        if changed || enabled || self.bus.unit(&name).await?.need_daemon_reload().await? {
            self.bus.reload().await?;
        }
        verify::verify(&self.bus, &Meant::service(service, &self.places)).await
    }

    async fn start_job(&self, service: &Service) -> Result<(), ServiceError> {
        let name = unit_name(&service.id);
        let result = self.bus.job(&name, Verb::Start, service.start_timeout + MARGIN).await;
        if matches!(result.as_ref().map(Option::as_deref), Ok(Some("done"))) {
            return Ok(());
        }
        // Asked before it is stopped, which would be what it then tells of.
        let outcome = self.outcome(&name).await;
        self.stop_job(&name).await?;
        Err(match result? {
            Some(result) if result != "failed" && result != "timeout" => {
                supervisor(format!("the job that starts {name} ended as {result:?}"))
            }
            Some(_) => ServiceError::Failed(outcome?.failure_of(service)),
            None => supervisor(format!("{name} is gone although dorc wrote it")),
        })
    }

    async fn outcome(&self, name: &str) -> Result<Outcome, ServiceError> {
        let mut outcome = Outcome::default();
        self.bus.read(name, &[bus::SERVICE, bus::UNIT], |properties| outcome.update(properties)).await?;
        Ok(outcome)
    }

    async fn stop_job(&self, name: &str) -> Result<(), ServiceError> {
        match self.bus.job(name, Verb::Stop, STOP_TIMEOUT + MARGIN).await?.as_deref() {
            Some("done") | None => {}
            Some(result) => return Err(supervisor(format!("the stop of {name} was {result}"))),
        }
        match self.bus.manager().await?.reset_failed_unit(name).await {
            Err(error) if !is_no_such_unit(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Stops and disables; `true` if systemd has something to forget.
    async fn disable(&self, name: &str) -> Result<bool, ServiceError> {
        self.stop_job(name).await?;
        match self.bus.manager().await?.disable_unit_files(&[name], false).await {
            Ok(changes) => Ok(!changes.is_empty()),
            Err(error) if is_no_such_unit(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_up(&self, name: &str) -> Result<bool, ServiceError> {
        let unit = self.bus.unit(name).await?;
        Ok(match unit.active_state().await?.as_str() {
            "active" | "activating" | "reloading" => true,
            // On its way down: by a command, or only until it is started again.
            "deactivating" => unit.job().await?.0 == 0,
            _ => false,
        })
    }

    async fn main_pid(&self, name: &str) -> Result<Option<u32>, ServiceError> {
        Ok(Some(self.bus.service(name).await?.main_pid().await?).filter(|pid| *pid != 0))
    }

    async fn hang_up(&self, name: &str) -> Result<(), ServiceError> {
        let pid = self.main_pid(name).await?;
        let Some(pid) = pid else { return Err(ServiceError::Unsupported(format!("{name} does not run"))) };
        if !sockets::handles_sighup(pid) {
            return Err(ServiceError::Unsupported(format!(
                "{name} can't be reloaded: its program does not handle SIGHUP, and `reload` names no command"
            )));
        }
        Ok(self.bus.manager().await?.kill_unit(name, "main", libc::SIGHUP).await?)
    }
}

/// The commands, once.
impl Systemd {
    async fn start_once(&self, service: &Service) -> Result<(), ServiceError> {
        refused(unit::render(service, &self.places))?;
        let (owned, places) = (service.clone(), self.places.clone());
        blocking(move || Ok(state_directory::check(&owned, &places)))
            .await
            .map_err(|e| supervisor(e.to_string()))??;
        let commands = self.commands(&service.id.app);
        let mut command = commands.begin(service.id.colour).await;
        self.stop_job(&unit_name(&service.id)).await?;
        self.install(service).await?;
        let before = monotonic_now();
        self.start_job(service).await?;
        // From here on an end is a crash, also one that came before this line.
        command.quiet_until = Some(before);
        Ok(())
    }

    async fn end_once(&self, id: &ServiceId) -> Result<(), ServiceError> {
        let commands = self.commands(&id.app);
        let _command = commands.begin(id.colour).await;
        self.stop_job(&unit_name(id)).await
    }

    async fn stop_once(&self, id: &ServiceId) -> Result<(), ServiceError> {
        let commands = self.commands(&id.app);
        let _command = commands.begin(id.colour).await;
        if self.disable(&unit_name(id)).await? {
            self.bus.reload().await?;
        }
        Ok(())
    }

    async fn remove_once(&self, id: &ServiceId) -> Result<(), ServiceError> {
        let commands = self.commands(&id.app);
        let _command = commands.begin(id.colour).await;
        let disabled = self.disable(&unit_name(id)).await?;
        self.forget_hooks(id).await?;
        let (unit_file, env_file) = (self.places.unit_file(id), self.places.env_file(id));
        let deleted = blocking(move || {
            files::remove(&env_file)?;
            let ours = fs::read_to_string(&unit_file).is_ok_and(|text| is_ours(&text));
            Ok(ours && files::remove(&unit_file)?)
        })
        .await
        .map_err(|error| supervisor(format!("the files of {id} can't be deleted: {error}")))?;
        if disabled || deleted {
            self.bus.reload().await?;
        }
        Ok(())
    }

    async fn reload_once(&self, service: &Service) -> Result<(), ServiceError> {
        let name = unit_name(&service.id);
        if service.reload.is_none() {
            return self.hang_up(&name).await;
        }
        match self.bus.job(&name, Verb::Reload, RELOAD_PATIENCE).await?.as_deref() {
            Some("done") => Ok(()),
            Some(result) => {
                Err(supervisor(format!("the reload of {name} was {result}; `dorc logs` may say why")))
            }
            None => Err(ServiceError::Unsupported(format!("{name} does not run"))),
        }
    }

    async fn running_once(&self, id: &ServiceId) -> Result<Option<Running>, ServiceError> {
        let name = unit_name(id);
        if !self.is_up(&name).await? {
            return Ok(None);
        }
        let unit_file = self.places.unit_file(id);
        let text = blocking(move || fs::read_to_string(unit_file)).await.unwrap_or_default();
        Ok(Some(Running {
            release: unit::release_in(&text),
            main_pid: self.main_pid(&name).await?,
            restarts: self.bus.service(&name).await?.n_restarts().await?,
        }))
    }

    async fn control_group_once(&self, id: &ServiceId) -> Result<String, ServiceError> {
        Ok(self.bus.service(&unit_name(id)).await?.control_group().await?)
    }
}

impl Services for Systemd {
    async fn start(&self, service: &Service) -> Result<(), ServiceError> {
        self.bus.patiently(|| self.start_once(service)).await
    }

    async fn end(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.bus.patiently(|| self.end_once(id)).await
    }

    async fn stop(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.bus.patiently(|| self.stop_once(id)).await
    }

    async fn remove(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.bus.patiently(|| self.remove_once(id)).await
    }

    async fn reload(&self, service: &Service) -> Result<(), ServiceError> {
        self.bus.patiently(|| self.reload_once(service)).await
    }

    async fn run(&self, hook: Hook, service: &Service) -> Result<Finished, ServiceError> {
        self.run_hook(hook, service).await
    }

    async fn running(&self, id: &ServiceId) -> Result<Option<Running>, ServiceError> {
        self.bus.patiently(|| self.running_once(id)).await
    }

    fn exits(&self, app: &AppName) -> mpsc::Receiver<Exited> {
        let (sender, receiver) = mpsc::channel(watch::QUEUE);
        let ids = ByColour::from_fn(|colour| ServiceId { app: app.clone(), colour });
        let told = self.commands(app).told.subscribe();
        let watcher = Watcher::new(self.bus_for_watcher(), ids, told, sender, monotonic_now());
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        while watchers.try_join_next().is_some() {}
        watchers.spawn(watcher.run());
        receiver
    }

    async fn last_lines(&self, id: &ServiceId, count: usize) -> Vec<String> {
        let env_file = self.places.env_file(id);
        let started = blocking(move || fs::metadata(env_file)?.modified()).await.ok();
        journal::last_lines(&unit_name(id), started, count).await
    }

    async fn listening_ports(&self, id: &ServiceId) -> Vec<u16> {
        let pids = self.processes(id).await.unwrap_or_default();
        blocking(move || Ok(sockets::listening_ports(&pids))).await.unwrap_or_default()
    }

    async fn control_group(&self, id: &ServiceId) -> Option<PathBuf> {
        match self.bus.patiently(|| self.control_group_once(id)).await {
            Ok(group) => blocking(move || Ok(control_group::folder(&group))).await.ok()?,
            Err(error) => {
                tracing::warn!("the control group of {id} is not known: {error}");
                None
            }
        }
    }
}

/// Whether dorc wrote that unit file.
fn is_ours(text: &str) -> bool {
    unit::release_in(text).is_some()
}

fn refused<T>(result: Result<T, unit::UnitError>) -> Result<T, ServiceError> {
    result.map_err(|error| ServiceError::Unsupported(error.to_string()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Microseconds of the clock in which systemd tells when a process started and ended.
fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
