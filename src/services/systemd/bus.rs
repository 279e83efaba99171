//! The connection to systemd, and its answers to jobs.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use zbus::fdo::PropertiesProxy;
use zbus::message::Type;
use zbus::names::InterfaceName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant};

use crate::services::ServiceError;

use super::proxies::{ManagerProxy, ServiceProxy, UnitProxy};

/// The bus name of systemd.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The properties of a service, and those of any unit.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

/// How long systemd may take over one call; `Reload` of a host with thousands of units takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a restart of the bus may keep a command waiting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often a command is repeated: a bus that is being restarted may accept a connection and then lose it again.
const ATTEMPTS: usize = 3;
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How many questions to systemd may be open: the bus refuses a connection more than 128 unless it is told otherwise
/// (`max_replies_per_connection` of dbus-daemon(1)), and systemd answers them one after the other anyway.
const OPEN_QUESTIONS: usize = 32;
/// The bus tells a connection what it asked for in no more than 512 rules (`max_match_rules_per_connection`). A job needs one
/// until it is over, and the two services of an app need one each for as long as they are watched.
const JOBS: usize = 256;
pub(super) const WATCHED_APPS: usize = 100;

/// systemd does not answer, or with an error of its own.
pub(super) fn supervisor(message: impl Into<String>) -> ServiceError {
    ServiceError::Supervisor { supervisor: "systemd", message: message.into() }
}

impl From<zbus::Error> for ServiceError {
    fn from(error: zbus::Error) -> Self {
        supervisor(match &error {
            zbus::Error::MethodError(name, Some(text), _) => format!("{text} ({name})"),
            _ => error.to_string(),
        })
    }
}

/// What a unit is told to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Start,
    Restart,
    Stop,
    Reload,
}

/// A connection to the system bus that is made again when it was lost.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Mutex<Option<Connection>>,
    questions: Semaphore,
    jobs: Semaphore,
    /// Held while all properties of a unit are in memory: hundreds of them, and there may be many units.
    asking: Mutex<()>,
    /// How many reloads were asked for, and how many of these have been done.
    reloads_asked: AtomicU64,
    reloads_done: Mutex<u64>,
}

/// A proxy in its turn to ask. Whoever has one takes no second: all could wait for each other.
pub(super) struct Turn<'a, P> {
    proxy: P,
    _turn: SemaphorePermit<'a>,
}

impl<P> Deref for Turn<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.proxy
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            connection: Mutex::default(),
            questions: Semaphore::new(OPEN_QUESTIONS),
            jobs: Semaphore::new(JOBS),
            asking: Mutex::default(),
            reloads_asked: AtomicU64::default(),
            reloads_done: Mutex::default(),
        }
    }
}

impl Bus {
    /// The connection; systemd sends its signals to it.
    pub(super) async fn connection(&self) -> Result<Connection, ServiceError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = connect_patiently().await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Does it again where it failed because the bus was restarted meanwhile: every command of `Services` may be repeated.
    pub(super) async fn patiently<T, F>(&self, command: impl Fn() -> F) -> Result<T, ServiceError>
    where
        F: Future<Output = Result<T, ServiceError>>,
    {
        for _ in 0..ATTEMPTS {
            let before = self.connection().await?;
            match command().await {
                Err(ServiceError::Supervisor { message, .. }) if is_lost(&before).await => {
                    tracing::info!("the system bus was lost ({message}), trying again");
                }
                result => return result,
            }
        }
        command().await
    }

    /// What `read` makes of the properties that a unit has in these interfaces.
    pub(super) async fn read<T>(
        &self,
        unit: &str,
        interfaces: &[&'static str],
        read: impl FnOnce(&HashMap<String, OwnedVariant>) -> T,
    ) -> Result<T, ServiceError> {
        let _asking = self.asking.lock().await;
        let connection = self.connection().await?;
        let properties =
            self.turn(PropertiesProxy::new(&connection, SYSTEMD, unit_path(unit)).await?).await?;
        let mut all = HashMap::new();
        for interface in interfaces {
            let interface = InterfaceName::from_static_str_unchecked(interface);
            all.extend(properties.get_all(interface).await.map_err(zbus::Error::from)?);
        }
        Ok(read(&all))
    }

    pub(super) async fn manager(&self) -> Result<Turn<'_, ManagerProxy<'static>>, ServiceError> {
        self.turn(ManagerProxy::new(&self.connection().await?).await?).await
    }

    pub(super) async fn unit(&self, name: &str) -> Result<Turn<'_, UnitProxy<'static>>, ServiceError> {
        // A cache would ask for all properties, and have itself told of every change, for each question.
        let builder = UnitProxy::builder(&self.connection().await?).path(unit_path(name));
        self.turn(builder.cache_properties(CacheProperties::No).build().await?).await
    }

    pub(super) async fn service(&self, name: &str) -> Result<Turn<'_, ServiceProxy<'static>>, ServiceError> {
        let builder = ServiceProxy::builder(&self.connection().await?).path(unit_path(name));
        self.turn(builder.cache_properties(CacheProperties::No).build().await?).await
    }

    /// Has systemd read its unit files anew: once for all who ask while it does so for others, because it reads those of the
    /// whole host, and does nothing else meanwhile.
    pub(super) async fn reload(&self) -> Result<(), ServiceError> {
        let mine = self.reloads_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut done = self.reloads_done.lock().await;
        if *done < mine {
            let asked = self.reloads_asked.load(Ordering::Relaxed);
            self.manager().await?.reload().await?;
            *done = asked;
        }
        Ok(())
    }

    async fn turn<P>(&self, proxy: P) -> Result<Turn<'_, P>, ServiceError> {
        Ok(Turn { proxy, _turn: turn(&self.questions).await? })
    }

    /// Makes systemd do it and waits for the result of the job: `done`, `failed`, `timeout`, ...
    /// `None` where there is no such unit.
    pub(super) async fn job(
        &self,
        unit: &str,
        verb: Verb,
        patience: Duration,
    ) -> Result<Option<String>, ServiceError> {
        let _turn = turn(&self.jobs).await?;
        let connection = self.connection().await?;
        let mut removed = MessageStream::for_match_rule(job_removed(unit)?, &connection, queue(16)).await?;
        let Some(job) = self.begin(unit, verb).await? else { return Ok(None) };
        timeout(patience, result_of(&mut removed, &job))
            .await
            .map_err(|_| {
                supervisor(format!("{verb:?} of {unit} is not over after {} s", patience.as_secs()))
            })?
            .map(Some)
    }

    /// Makes systemd begin with it; the job.
    async fn begin(&self, unit: &str, verb: Verb) -> Result<Option<OwnedObjectPath>, ServiceError> {
        let manager = self.manager().await?;
        let job = match verb {
            Verb::Start => manager.start_unit(unit, "replace").await,
            Verb::Restart => manager.restart_unit(unit, "replace").await,
            Verb::Stop => manager.stop_unit(unit, "replace").await,
            Verb::Reload => manager.reload_unit(unit, "replace").await,
        };
        match job {
            Ok(job) => Ok(Some(job)),
            Err(error) if is_no_such_unit(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

async fn turn(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, ServiceError> {
    semaphore.acquire().await.map_err(|closed| supervisor(closed.to_string()))
}

async fn is_lost(connection: &Connection) -> bool {
    timeout(CONNECT_PAUSE, connection.closed()).await.is_ok()
}

async fn result_of(removed: &mut MessageStream, job: &ObjectPath<'_>) -> Result<String, ServiceError> {
    while let Some(message) = removed.next().await {
        let message = message?;
        let (_, ended, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
        if ended.as_str() == job.as_str() {
            return Ok(result);
        }
    }
    Err(supervisor(
        "the connection was lost before the job was over; ask `systemctl status` for what became of it",
    ))
}

fn job_removed(unit: &str) -> zbus::Result<MatchRule<'_>> {
    MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SYSTEMD)
        .path(MANAGER_PATH)
        .interface("org.freedesktop.systemd1.Manager")
        .member("JobRemoved")
        .arg(2, unit)
        .build()
}

/// The signals of one unit's changes.
pub(super) async fn changes(connection: &Connection, unit: &str) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SYSTEMD)
        .path(unit_path(unit))
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .build()?;
    MessageStream::for_match_rule(rule, connection, queue(64)).await
}

fn queue(length: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(length)
}

pub(super) fn is_no_such_unit(error: &zbus::Error) -> bool {
    let names = ["NoSuchUnit", "NoSuchUnitFile", "UnitNotLoaded"];
    matches!(error, zbus::Error::MethodError(name, _, _) if names.iter().any(|end| name.ends_with(&format!(".{end}"))))
        || matches!(error, zbus::Error::MethodError(name, _, _) if name.as_str() == "org.freedesktop.DBus.Error.FileNotFound")
}

async fn connect_patiently() -> Result<Connection, ServiceError> {
    let deadline = Instant::now() + CONNECT_PATIENCE;
    loop {
        match connect().await {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() >= deadline => {
                return Err(supervisor(format!(
                    "it can't be reached over the system bus ({error}); is this host run by systemd, and dbus installed?"
                )));
            }
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
    }
}

async fn connect() -> zbus::Result<Connection> {
    let connection = zbus::connection::Builder::system().method_timeout(CALL_TIMEOUT).build().await?;
    ManagerProxy::new(&connection).await?.subscribe().await?;
    Ok(connection)
}

/// The object of a unit; systemd loads the unit when it is asked about it.
pub(super) fn unit_path(unit: &str) -> OwnedObjectPath {
    let mut path = String::from(UNIT_PATH);
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path += &format!("_{byte:02x}");
        }
    }
    ObjectPath::from_string_unchecked(path).into()
}
