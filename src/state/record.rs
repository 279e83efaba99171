//! The types as they stand on disk, and the ways to and from the model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::AppState;
use crate::model::app::{self, Check, Sandbox, ServiceConfig};
use crate::model::colour::{ByColour, Colour};
use crate::model::deployment::{Live, Saved};
use crate::model::health::Failure;
use crate::model::hooks::{self, Hook};
use crate::model::proxy_protocol::ProxyProtocol;
use crate::model::release::{self, Catalogue};
use crate::model::share;

#[derive(Serialize, Deserialize)]
pub(super) struct State {
    last_number: u32,
    releases: Vec<Release>,
    #[serde(default)]
    active: Option<(String, String)>,
    #[serde(default)]
    standby: Option<(String, Option<Reasons>)>,
    #[serde(default)]
    wanted: Option<String>,
    #[serde(default)]
    baking: bool,
    #[serde(default)]
    canary: Option<Plan>,
    #[serde(default)]
    ports: Option<Both<u16>>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    in_directory: Option<String>,
    #[serde(default)]
    freeze: Option<Freeze>,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    share: String,
    #[serde(default)]
    time_ms: Option<u64>,
    #[serde(default)]
    rest: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Freeze {
    who: String,
    why: String,
    since: u64,
}

#[derive(Serialize, Deserialize)]
struct Both<T> {
    blue: T,
    green: T,
}

#[derive(Serialize, Deserialize)]
struct Release {
    id: String,
    artifact: String,
    config: String,
    recipe: Recipe,
    taken: u64,
    files: u64,
    bytes: u64,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    served: Option<u64>,
    #[serde(default)]
    failed: Option<Reasons>,
}

#[derive(Serialize, Deserialize)]
struct Reasons {
    reason: String,
    #[serde(default)]
    last_probe: Option<String>,
    #[serde(default)]
    log: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Recipe {
    bin: PathBuf,
    start: Both<Vec<String>>,
    reload: Option<Both<Vec<String>>>,
    stop: Option<Both<Vec<String>>>,
    ports: Option<Both<u16>>,
    env: BTreeMap<String, String>,
    env_file: Option<PathBuf>,
    user: Option<String>,
    working_dir: Option<Both<PathBuf>>,
    memory_max: Option<String>,
    sandboxed: bool,
    notify: bool,
    check: Probe,
    /// Left out where there are none, as it was before there could be some: it is a part of what digests are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hooks: Option<Hooks>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    credentials: BTreeMap<String, Credential>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<Proxy>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Proxy {
    V1,
    V2,
}

#[derive(Serialize, Deserialize)]
struct Credential {
    path: PathBuf,
    encrypted: bool,
}

#[derive(Serialize, Deserialize)]
struct Hooks {
    commands: BTreeMap<String, Vec<String>>,
    deadline_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Probe {
    Port { up_for_ms: u64 },
    Http { path: String, host: String },
    Command(Vec<String>),
}

impl<T: Clone> From<&ByColour<T>> for Both<T> {
    fn from(both: &ByColour<T>) -> Self {
        Self { blue: both.blue.clone(), green: both.green.clone() }
    }
}

impl<T> From<Both<T>> for ByColour<T> {
    fn from(both: Both<T>) -> Self {
        Self { blue: both.blue, green: both.green }
    }
}

impl From<&Failure> for Reasons {
    fn from(failure: &Failure) -> Self {
        let Failure { reason, last_probe, log } = failure.clone();
        Self { reason, last_probe, log }
    }
}

impl From<Reasons> for Failure {
    fn from(reasons: Reasons) -> Self {
        let Reasons { reason, last_probe, log } = reasons;
        Self { reason, last_probe, log }
    }
}

impl From<&AppState> for State {
    fn from(state: &AppState) -> Self {
        let Saved { active, standby, wanted, baking, canary } = &state.saved;
        Self {
            last_number: state.catalogue.last_number,
            releases: state.catalogue.releases.iter().map(Release::from).collect(),
            active: active.map(|live| (live.colour.to_string(), live.release.to_string())),
            standby: standby
                .as_ref()
                .map(|(release, failure)| (release.to_string(), failure.as_ref().map(Reasons::from))),
            wanted: wanted.map(|release| release.to_string()),
            baking: *baking,
            canary: canary.as_ref().map(Plan::from),
            ports: state.ports.as_ref().map(Both::from),
            fingerprint: state.fingerprint.clone(),
            in_directory: state.in_directory.map(|digest| digest.to_string()),
            freeze: state.freeze.clone().map(|super::Freeze { who, why, since }| Freeze {
                who,
                why,
                since: millis(since),
            }),
        }
    }
}

impl TryFrom<State> for AppState {
    type Error = String;

    fn try_from(state: State) -> Result<Self, String> {
        let active = match state.active {
            Some((colour, release)) => {
                Some(Live { colour: named::<Colour>(&colour)?, release: named(&release)? })
            }
            None => None,
        };
        let standby = match state.standby {
            Some((release, failure)) => Some((named(&release)?, failure.map(Failure::from))),
            None => None,
        };
        let wanted = state.wanted.as_deref().map(named).transpose()?;
        let canary = state.canary.map(share::Plan::try_from).transpose()?;
        let releases =
            state.releases.into_iter().map(release::Release::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            catalogue: Catalogue { releases, last_number: state.last_number },
            saved: Saved { active, standby, wanted, baking: state.baking, canary },
            ports: state.ports.map(ByColour::from),
            fingerprint: state.fingerprint,
            in_directory: state.in_directory.as_deref().map(named).transpose()?,
            freeze: state.freeze.map(|Freeze { who, why, since }| super::Freeze {
                who,
                why,
                since: time(since),
            }),
        })
    }
}

impl From<&share::Plan> for Plan {
    fn from(plan: &share::Plan) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            share: plan.share.to_string(),
            time_ms: plan.time.map(millis),
            rest: plan.rest.iter().map(|step| (step.share.to_string(), millis(step.time))).collect(),
        }
    }
}

impl TryFrom<Plan> for share::Plan {
    type Error = String;

    fn try_from(plan: Plan) -> Result<Self, String> {
        let step = |(share, time): (String, u64)| {
            Ok::<_, String>(share::Step { share: named(&share)?, time: Duration::from_millis(time) })
        };
        Ok(Self {
            share: named(&plan.share)?,
            time: plan.time_ms.map(Duration::from_millis),
            rest: plan.rest.into_iter().map(step).collect::<Result<_, _>>()?,
        })
    }
}

/// Reads a name that this program wrote.
fn named<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("it has {text:?} where a name is to be"))
}

impl From<&release::Release> for Release {
    fn from(release: &release::Release) -> Self {
        let failed = match &release.verdict {
            release::Verdict::Failed(failure) => Some(Reasons::from(failure)),
            release::Verdict::Untried | release::Verdict::Good(_) => None,
        };
        Self {
            id: release.id.to_string(),
            artifact: release.artifact.to_string(),
            config: release.config.to_string(),
            recipe: Recipe::from(&release.recipe),
            taken: millis(release.taken),
            files: release.files,
            bytes: release.bytes,
            label: release.label.as_ref().map(ToString::to_string),
            served: release.served().map(millis),
            failed,
        }
    }
}

impl TryFrom<Release> for release::Release {
    type Error = String;

    fn try_from(record: Release) -> Result<Self, String> {
        let verdict = match (record.served, record.failed) {
            (Some(when), _) => release::Verdict::Good(time(when)),
            (None, Some(reasons)) => release::Verdict::Failed(reasons.into()),
            (None, None) => release::Verdict::Untried,
        };
        Ok(Self {
            id: named(&record.id)?,
            artifact: named(&record.artifact)?,
            config: named(&record.config)?,
            recipe: record.recipe.into(),
            taken: time(record.taken),
            files: record.files,
            bytes: record.bytes,
            label: record.label.as_deref().map(named).transpose()?,
            verdict,
        })
    }
}

/// Milliseconds since 1970: finer than any two switches are apart.
fn millis(when: SystemTime) -> u64 {
    let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

impl From<&release::Recipe> for Recipe {
    fn from(recipe: &release::Recipe) -> Self {
        let service = &recipe.service;
        Self {
            bin: recipe.bin.clone(),
            start: Both::from(&service.start),
            reload: service.reload.as_ref().map(Both::from),
            stop: service.stop.as_ref().map(Both::from),
            ports: service.ports.as_ref().map(Both::from),
            env: service.env.clone(),
            env_file: service.env_file.clone(),
            user: service.user.clone(),
            working_dir: service.working_dir.as_ref().map(Both::from),
            memory_max: service.memory_max.clone(),
            sandboxed: service.sandbox == Sandbox::Strict,
            notify: service.notify,
            check: match recipe.check.clone() {
                Check::Port { up_for } => {
                    Probe::Port { up_for_ms: u64::try_from(up_for.as_millis()).unwrap_or(u64::MAX) }
                }
                Check::Http { path, host } => Probe::Http { path, host },
                Check::Command(words) => Probe::Command(words),
            },
            hooks: (!recipe.hooks.commands.is_empty()).then(|| Hooks::from(&recipe.hooks)),
            credentials: service
                .credentials
                .iter()
                .map(|(name, app::Credential { path, encrypted })| {
                    (name.clone(), Credential { path: path.clone(), encrypted: *encrypted })
                })
                .collect(),
            proxy_protocol: service.proxy_protocol.map(|version| match version {
                ProxyProtocol::V1 => Proxy::V1,
                ProxyProtocol::V2 => Proxy::V2,
            }),
        }
    }
}

impl From<&hooks::Hooks> for Hooks {
    fn from(hooks: &hooks::Hooks) -> Self {
        let commands = hooks.commands.iter();
        Self {
            commands: commands.map(|(hook, words)| (hook.to_string(), words.clone())).collect(),
            deadline_ms: u64::try_from(hooks.deadline.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Hooks> for hooks::Hooks {
    fn from(mut record: Hooks) -> Self {
        // One that only a later dorc knows is not run by this one.
        let command = |hook: Hook| Some((hook, record.commands.remove(hook.name())?));
        Self {
            commands: Hook::ALL.into_iter().filter_map(command).collect(),
            deadline: Duration::from_millis(record.deadline_ms),
        }
    }
}

impl From<Recipe> for release::Recipe {
    fn from(record: Recipe) -> Self {
        let service = ServiceConfig {
            start: record.start.into(),
            reload: record.reload.map(ByColour::from),
            stop: record.stop.map(ByColour::from),
            ports: record.ports.map(ByColour::from),
            env: record.env,
            env_file: record.env_file,
            credentials: record
                .credentials
                .into_iter()
                .map(|(name, Credential { path, encrypted })| (name, app::Credential { path, encrypted }))
                .collect(),
            user: record.user,
            working_dir: record.working_dir.map(ByColour::from),
            memory_max: record.memory_max,
            proxy_protocol: record.proxy_protocol.map(|version| match version {
                Proxy::V1 => ProxyProtocol::V1,
                Proxy::V2 => ProxyProtocol::V2,
            }),
            sandbox: if record.sandboxed { Sandbox::Strict } else { Sandbox::Off },
            notify: record.notify,
        };
        let check = match record.check {
            Probe::Port { up_for_ms } => Check::Port { up_for: Duration::from_millis(up_for_ms) },
            Probe::Http { path, host } => Check::Http { path, host },
            Probe::Command(words) => Check::Command(words),
        };
        let none = Hooks { commands: BTreeMap::new(), deadline_ms: 0 };
        Self { bin: record.bin, service, check, hooks: record.hooks.unwrap_or(none).into() }
    }
}
