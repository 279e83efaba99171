//! Unit files: from a `Service` to text that can mean nothing else.

mod environment;
mod escape;
mod sandbox;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::app::{AppName, Credential, Sandbox, Service, ServiceId};
use crate::model::hooks::Hook;
use crate::model::release::ReleaseId;

pub use environment::environment;
pub use escape::UnitError;
use escape::{command, memory, path, quoted_path, user_name};

/// The longest that systemd waits for a service to end before it kills it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest name that systemd accepts for a dynamic user.
const MAX_USER: usize = 31;

/// The key that tells a unit's release; systemd ignores what starts with `X-`.
const RELEASE_KEY: &str = "X-Dorc-Release=";

/// The directories that dorc and systemd meet in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where unit files are written: `/etc/systemd/system`.
    pub units: PathBuf,
    /// Where the unit files of hooks are written, which are gone after a boot: `/run/systemd/system`.
    pub transient_units: PathBuf,
    /// What dorc owns: `/var/lib/dorc`. Services see nothing of it but their own release.
    pub state: PathBuf,
    /// Where systemd keeps the state directories of services: `/var/lib`.
    pub state_directories: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            units: "/etc/systemd/system".into(),
            transient_units: "/run/systemd/system".into(),
            state: "/var/lib/dorc".into(),
            state_directories: "/var/lib".into(),
        }
    }
}

impl Places {
    /// The unit file of that service.
    #[must_use]
    pub fn unit_file(&self, id: &ServiceId) -> PathBuf {
        self.units.join(unit_name(id))
    }

    /// The file with that service's environment, for root's eyes only.
    #[must_use]
    pub fn env_file(&self, id: &ServiceId) -> PathBuf {
        self.state.join("apps").join(id.app.as_str()).join(format!("{}.env", id.colour))
    }

    /// The unit file of a hook of that service.
    #[must_use]
    pub fn hook_file(&self, id: &ServiceId, hook: Hook) -> PathBuf {
        self.transient_units.join(hook_unit_name(id, hook))
    }

    /// The file with the environment of a hook, for root's eyes only.
    #[must_use]
    pub fn hook_env_file(&self, id: &ServiceId, hook: Hook) -> PathBuf {
        self.env_file(id).with_file_name(format!("{}_{hook}.env", id.colour))
    }
}

/// The name of the unit of that service.
#[must_use]
pub fn unit_name(id: &ServiceId) -> String {
    format!("{id}.service")
}

/// The name of the unit of a hook: no app's name has an underscore, so it is no other app's service.
#[must_use]
pub fn hook_unit_name(id: &ServiceId, hook: Hook) -> String {
    format!("{id}_{hook}.service")
}

/// The dynamic user of an app, the same for both colours.
///
/// systemd wants at most 31 characters and no dots. Names that are too long for that or have dots get the tail of a hash, and
/// underscores, which no app's name has: so no two apps share a user.
#[must_use]
pub fn dynamic_user(app: &AppName) -> String {
    let name = app.as_str();
    let plain = format!("dorc-{name}");
    if plain.len() <= MAX_USER && !name.contains('.') {
        return plain;
    }
    let head: String = name.replace('.', "-").chars().take(15).collect();
    let tail: String = blake3::hash(name.as_bytes()).to_hex().chars().take(10).collect();
    format!("dorc_{head}_{tail}")
}

/// The user that the service runs as.
#[must_use]
pub fn user_of(service: &Service) -> String {
    service.user.clone().unwrap_or_else(|| dynamic_user(&service.id.app))
}

/// The release that a unit file of ours runs.
#[must_use]
pub fn release_in(text: &str) -> Option<ReleaseId> {
    text.lines().find_map(|line| line.strip_prefix(RELEASE_KEY))?.parse().ok()
}

/// Writes the unit file of `service`.
///
/// # Errors
/// Something in it can't be written so that systemd takes it for nothing else.
pub fn render(service: &Service, places: &Places) -> Result<String, UnitError> {
    let mut text = header(service);
    text += "\n[Service]\n";
    text += &lifecycle(service)?;
    text += &surroundings(service, places, &service.id.to_string(), &places.env_file(&service.id))?;
    text += "\n[Install]\nWantedBy=multi-user.target\n";
    Ok(text)
}

/// Writes the unit file of a hook of `service`, whose `start` is the hook's command.
///
/// # Errors
/// As `render`.
pub fn render_hook(hook: Hook, service: &Service, places: &Places) -> Result<String, UnitError> {
    let Service { id, release, .. } = service;
    let mut text = format!(
        "# dorc wrote this file for one run of the hook {hook} of {app}, and deletes it after that.

[Unit]
Description={app}, release {release} ({colour}), hook {hook}
{RELEASE_KEY}{release}

[Service]
Type=oneshot
",
        app = id.app,
        colour = id.colour,
    );
    push(&mut text, "ExecStart", &command("the hook's command", &service.start)?);
    push(&mut text, "TimeoutStartSec", &seconds(service.start_timeout));
    push(&mut text, "TimeoutStopSec", &seconds(STOP_TIMEOUT));
    text += "KillMode=mixed\nRestart=no\n";
    text += &surroundings(service, places, &format!("{id}_{hook}"), &places.hook_env_file(id, hook))?;
    Ok(text)
}

/// No `Wants=network-online.target`: it would make a deployment wait for a network that is never quite online. At boot others
/// want it, and then the order counts.
fn header(service: &Service) -> String {
    let Service { id, release, .. } = service;
    let app = &id.app;
    format!(
        "# dorc wrote this file and writes it again with each release of {app}: changes made here get lost.
# What the app file does not offer goes into a drop-in, which dorc keeps its hands off:
#   systemctl edit {id}.service        (and the same for {other}-{app}.service)

[Unit]
Description={app}, release {release} ({colour}, run by dorc)
Documentation=man:dorc(1)
After=network-online.target nss-lookup.target
StartLimitIntervalSec=0
{RELEASE_KEY}{release}
",
        colour = id.colour,
        other = id.colour.other(),
    )
}

/// How it is started, reloaded, stopped, and started again.
fn lifecycle(service: &Service) -> Result<String, UnitError> {
    let mut text = format!("Type={}\n", if service.notify { "notify" } else { "exec" });
    push(&mut text, "ExecStart", &command("the start command", &service.start)?);
    if let Some(words) = &service.reload {
        push(&mut text, "ExecReload", &command("the reload command", words)?);
    }
    if let Some(words) = &service.stop {
        push(&mut text, "ExecStop", &command("the stop command", words)?);
    }
    push(&mut text, "TimeoutStartSec", &seconds(service.start_timeout));
    push(&mut text, "TimeoutStopSec", &seconds(STOP_TIMEOUT));
    // The service itself is asked to end, whatever is left of it is killed. 143 is how a JVM says that it was asked to end.
    text += "KillMode=mixed\nSuccessExitStatus=143\nRestart=always\nRestartSec=200ms\n";
    Ok(text)
}

/// Where it runs, as whom, with which environment and limits, and how locked up.
fn surroundings(
    service: &Service,
    places: &Places,
    identifier: &str,
    env_file: &Path,
) -> Result<String, UnitError> {
    let app = &service.id.app;
    let mut text = String::new();
    push(&mut text, "WorkingDirectory", &path("the working directory", &service.working_dir)?);
    push(&mut text, "SyslogIdentifier", identifier);
    match &service.user {
        Some(user) => push(&mut text, "User", user_name(user)?),
        None => {
            push(&mut text, "User", &dynamic_user(app));
            text += "DynamicUser=yes\n";
            // A dynamic user's home is `/`, where it can't write.
            push(&mut text, "Environment", &format!("HOME=%S/{app}"));
        }
    }
    push(&mut text, "StateDirectory", app.as_str());
    // Go's multipath TCP makes sockets that the kernel plane can't steer to. The files below have the last word.
    text += "Environment=GODEBUG=multipathtcp=0\n";
    if let Some(file) = &service.env_file {
        push(&mut text, "EnvironmentFile", &escape::glob_free("the environment file", file)?);
    }
    push(&mut text, "EnvironmentFile", &escape::glob_free("dorc's folder", env_file)?);
    for (name, Credential { path, encrypted }) in &service.credentials {
        let key = if *encrypted { "LoadCredentialEncrypted" } else { "LoadCredential" };
        push(&mut text, key, &escape::credential(name, path)?);
    }
    text += "LimitNOFILE=65536:524288\n";
    if let Some(limit) = &service.memory_max {
        push(&mut text, "MemoryMax", memory(limit)?);
    }
    if service.sandbox == Sandbox::Strict {
        text += "\n";
        text += sandbox::STRICT;
        text += &visible_paths(service, places)?;
    }
    Ok(text)
}

/// Of dorc's folder a service sees its own release only; a working directory of its own may be written.
fn visible_paths(service: &Service, places: &Places) -> Result<String, UnitError> {
    let mut text = String::new();
    let state = quoted_path("dorc's folder", &places.state, ":ro")?;
    push(&mut text, "TemporaryFileSystem", &state);
    push(&mut text, "BindReadOnlyPaths", &quoted_path("the release", &service.dir, "")?);
    if !is_within(&service.working_dir, &service.dir) {
        let dir = quoted_path("the working directory", &service.working_dir, "")?;
        push(&mut text, "BindPaths", &dir);
        push(&mut text, "ReadWritePaths", &dir);
    }
    Ok(text)
}

fn is_within(inner: &Path, outer: &Path) -> bool {
    inner.starts_with(outer)
}

fn push(text: &mut String, key: &str, value: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{key}={value}");
}

/// A time span as systemd reads it; never 0, which would mean for ever.
fn seconds(span: Duration) -> String {
    format!("{}ms", span.as_millis().max(1))
}
