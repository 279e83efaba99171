//! A valid application: what the rest of the program may hold of a configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::colour::{ByColour, Colour};
use super::hooks::Hooks;
use super::proxy_protocol::ProxyProtocol;
use super::release::ReleaseId;
use super::share::Step;

/// The longest name an application may have, in characters.
pub const MAX_NAME: usize = 32;

/// Names that would collide with directories of dorc's or systemd's own.
const RESERVED: [&str; 2] = ["dorc", "private"];

/// The name of an application: `[a-z][a-z0-9-]{0,31}`, and dots as the first dorc allowed them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(String);

impl AppName {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an app needs a name".into());
        }
        if text.chars().count() > MAX_NAME {
            return Err(format!(
                "an app's name has at most {MAX_NAME} characters, this one has {}",
                text.chars().count()
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(format!("an app's name starts with a lower-case letter, {text:?} does not"));
        }
        if let Some(bad) =
            text.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.')))
        {
            return Err(format!("an app's name has only a-z, 0-9, '-' and '.', {text:?} has {bad:?}"));
        }
        if text.contains("..") || text.ends_with(['.', '-']) {
            return Err(format!("an app's name has no '..' and does not end in '.' or '-', {text:?} does"));
        }
        if RESERVED.contains(&text) {
            return Err(format!("{text:?} is reserved, choose another name"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its service of that colour, which is also the unit's name without `.service`.
    #[must_use]
    pub fn service(&self, colour: Colour) -> String {
        format!("{colour}-{}", self.0)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A whole, valid application file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// What it is called.
    pub name: AppName,
    /// Where clients reach it; at least one address, no two alike.
    pub listen: Vec<SocketAddr>,
    /// How connections are to reach the active service.
    pub plane: PlaneChoice,
    /// Where uploads arrive; absolute.
    pub release_dir: PathBuf,
    /// The program to run.
    pub release_bin: ReleaseBin,
    /// Users besides root and the group `dorc` who may deploy it.
    pub deployers: Vec<String>,
    /// How its services are run.
    pub service: ServiceConfig,
    /// When a service counts as healthy.
    pub health: HealthConfig,
    /// What is run at which moment of a deployment.
    pub hooks: Hooks,
    /// How traffic is moved.
    pub switch: SwitchConfig,
    /// How releases are taken and kept.
    pub release: ReleaseConfig,
}

/// Where the release binary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseBin {
    /// Inside the release directory, relative to it, of normal components only.
    Inside(PathBuf),
    /// Elsewhere; absolute. It is taken into the root of the release under its own file name.
    Outside(PathBuf),
}

impl ReleaseBin {
    /// Its path inside a taken release, relative.
    #[must_use]
    pub fn in_release(&self) -> PathBuf {
        match self {
            Self::Inside(path) => path.clone(),
            Self::Outside(path) => path.file_name().map_or_else(PathBuf::new, PathBuf::from),
        }
    }
}

/// The plane that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaneChoice {
    /// The kernel plane where the host can, else tcp.
    Auto,
    /// Only the kernel plane.
    Kernel,
    /// The tcp plane.
    Tcp,
    /// The http plane.
    Http,
}

/// A secret in a file that only root needs to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The file.
    pub path: PathBuf,
    /// Whether it was encrypted with `systemd-creds encrypt`.
    pub encrypted: bool,
}

/// How a service is run. All of it is part of a release's configuration digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The command as words; `{bin}`, `{port}` and `{colour}` are still to be filled in.
    pub start: ByColour<Vec<String>>,
    /// The reload command, as `start`; `None`: SIGHUP where the program handles it.
    pub reload: Option<ByColour<Vec<String>>>,
    /// The stop command, as `start`; `None`: SIGTERM.
    pub stop: Option<ByColour<Vec<String>>>,
    /// The services' own ports on 127.0.0.1; `None`: two free ones, chosen once and kept.
    pub ports: Option<ByColour<u16>>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// A file of environment variables that only root needs to read.
    pub env_file: Option<PathBuf>,
    /// Secrets that the program finds as files of these names.
    pub credentials: BTreeMap<String, Credential>,
    /// The user to run as; `None`: a dynamic user of the app's own.
    pub user: Option<String>,
    /// Where the services run; `None`: in the release itself. Each release is copied there.
    pub working_dir: Option<ByColour<PathBuf>>,
    /// systemd's `MemoryMax`, as it was written.
    pub memory_max: Option<String>,
    /// How it is told who its clients are, where dorc passes the bytes on; `None`: not at all.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How locked up the services are.
    pub sandbox: Sandbox,
    /// Whether the program says itself when it is ready (`Type=notify`).
    pub notify: bool,
}

/// How locked up a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// All that systemd offers and that does not break ordinary programs.
    Strict,
    /// None of it.
    Off,
}

/// When a service counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// What is asked.
    pub check: Check,
    /// The time from one probe's end to the next one's start.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// How many probes in a row have to succeed.
    pub successes: u32,
    /// How long a candidate has from its start until it must be ready.
    pub deadline: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The port takes a connection, and the service has been up for this long.
    Port {
        /// The time that the service must have been up.
        up_for: Duration,
    },
    /// An HTTP GET says 2xx.
    Http {
        /// The path and query.
        path: String,
        /// The `Host` header.
        host: String,
    },
    /// A command exits with 0; words as in `ServiceConfig::start`.
    Command(Vec<String>),
}

/// How traffic is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Who promotes a ready candidate.
    pub promote: Promote,
    /// How long old connections get; `None`: for ever.
    pub drain: Option<Duration>,
    /// How long the new colour is watched after a switch.
    pub bake: Duration,
    /// Whether traffic goes to the other colour, if that is warm, when the active one keeps ending later.
    pub failover: bool,
    /// The steps of a canary; none: only where a share is named.
    pub canary: Vec<Step>,
    /// How long a connection waits for a service that is restarting.
    pub hold: Duration,
}

/// Who promotes a ready candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promote {
    /// A user, with `dorc switch`.
    Manual,
    /// dorc, as soon as it is ready.
    Auto,
}

/// How releases are taken and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseConfig {
    /// How many good releases are kept.
    pub keep: usize,
    /// The quiet time before an upload counts as finished.
    pub settle: Duration,
    /// The minisign keys, in base64, of which one has to have signed each file; none: nothing has to be signed.
    pub signed_by: Vec<String>,
}

/// The identity of a service: an app's name and a colour.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceId {
    /// The app.
    pub app: AppName,
    /// Which of its two services.
    pub colour: Colour,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.colour, self.app)
    }
}

/// One service exactly as a supervisor has to run it: every placeholder filled in, every path absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Whose it is.
    pub id: ServiceId,
    /// The release that it runs.
    pub release: ReleaseId,
    /// The folder of the release: root-owned, read-only to the service.
    pub dir: PathBuf,
    /// The command: an absolute program and its arguments.
    pub start: Vec<String>,
    /// The reload command; `None`: SIGHUP.
    pub reload: Option<Vec<String>>,
    /// The stop command; `None`: SIGTERM.
    pub stop: Option<Vec<String>>,
    /// The environment, `PORT` included.
    pub env: BTreeMap<String, String>,
    /// A further file of environment variables.
    pub env_file: Option<PathBuf>,
    /// Secrets that it finds as files of these names in `$CREDENTIALS_DIRECTORY`; all are in one folder.
    pub credentials: BTreeMap<String, Credential>,
    /// The user; `None`: dynamic.
    pub user: Option<String>,
    /// Where it runs.
    pub working_dir: PathBuf,
    /// systemd's `MemoryMax`.
    pub memory_max: Option<String>,
    /// How locked up it is.
    pub sandbox: Sandbox,
    /// Whether it says itself when it is ready.
    pub notify: bool,
    /// How long its start may take.
    pub start_timeout: Duration,
}
