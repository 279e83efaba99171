//! What follows from the configuration: how the model is to decide, and a release's service exactly as it has to be run.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::hooks;
use super::perform::Question;
use super::task::Engine;
use crate::model::app::{App, Check, Service, ServiceId};
use crate::model::colour::{ByColour, Colour};
use crate::model::deployment::{Live, Policy};
use crate::model::release::{Recipe, Release};
use crate::releases::upload::Upload;
use crate::routing::{Route, Target};
use crate::services::Services;
use crate::services::unit::STOP_TIMEOUT;
use crate::state::AppState;

/// Ports below the kernel's ephemeral ones, which outgoing connections could take.
pub(super) const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// What the model needs to know of the configuration and of what users ordered.
pub(super) fn policy(app: &App, state: &AppState) -> Policy {
    Policy {
        promote: app.switch.promote,
        drain: app.switch.drain,
        bake: app.switch.bake,
        failover: app.switch.failover,
        deadline: STOP_TIMEOUT + app.health.deadline + hooks::before_traffic(app, state),
        canary: app.switch.canary.clone(),
        frozen: state.freeze.is_some(),
    }
}

/// Where the uploads of `app` arrive, and what they have to be.
pub(super) fn upload(app: &App) -> Upload {
    let starts = |words: &[String]| words.first().is_some_and(|program| program == "{bin}");
    Upload {
        dir: app.release_dir.clone(),
        bin: app.release_bin.clone(),
        signed_by: app.release.signed_by.clone(),
        is_started: Colour::BOTH.into_iter().any(|colour| starts(&app.service.start[colour])),
    }
}

/// The part of `app` that belongs to a release, with its ports filled in.
pub(super) fn of(app: &App, ports: ByColour<u16>) -> Recipe {
    let mut service = app.service.clone();
    service.ports = Some(ports);
    let (check, hooks) = (app.health.check.clone(), app.hooks.clone());
    Recipe { bin: app.release_bin.in_release(), service, check, hooks }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// The service that runs a release, with the secrets that the release was made with.
    pub(super) fn service(&self, release: &Release, live: Live) -> Service {
        let mut service = service(&self.app, release, live, self.store.path(release.id));
        let secrets = self.state_dir.secrets();
        let kept = secrets.env_file(release.id);
        // Of a release that is older than this dorc none was kept.
        if service.env_file.is_some() && kept.exists() {
            service.env_file = Some(kept);
        }
        let dir = secrets.credentials(release.id);
        service.credentials.iter_mut().for_each(|(name, credential)| credential.path = dir.join(name));
        service
    }

    pub(super) fn question(&self, release: &Release, colour: Colour) -> Question {
        let dir = self.store.path(release.id);
        Question {
            check: check(&release.recipe, colour, &dir),
            address: address(&release.recipe, colour),
            proxy_protocol: release.recipe.service.proxy_protocol,
            health: self.app.health.clone(),
            env: env(&release.recipe, colour),
            dir,
        }
    }
}

/// The address on which the service of that colour is to listen.
pub(super) fn address(recipe: &Recipe, colour: Colour) -> SocketAddr {
    let port = recipe.service.ports.as_ref().map_or(0, |ports| ports[colour]);
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Where clients of that colour go.
pub(super) fn target(recipe: &Recipe, colour: Colour) -> Target {
    let proxy_protocol = recipe.service.proxy_protocol;
    Target { colour, address: address(recipe, colour), proxy_protocol }
}

/// The service that runs `release`, whose files are in `dir`, for the app.
pub(super) fn service(app: &App, release: &Release, live: Live, dir: PathBuf) -> Service {
    let recipe = &release.recipe;
    let config = &recipe.service;
    let words = |words: &[String]| fill(words, recipe, live.colour, &dir);
    Service {
        id: ServiceId { app: app.name.clone(), colour: live.colour },
        release: release.id,
        start: words(&config.start[live.colour]),
        reload: config.reload.as_ref().map(|reload| words(&reload[live.colour])),
        stop: config.stop.as_ref().map(|stop| words(&stop[live.colour])),
        env: env(recipe, live.colour),
        env_file: config.env_file.clone(),
        credentials: config.credentials.clone(),
        user: config.user.clone(),
        working_dir: config
            .working_dir
            .as_ref()
            .map_or_else(|| dir.clone(), |dirs| dirs[live.colour].clone()),
        memory_max: config.memory_max.clone(),
        sandbox: config.sandbox,
        notify: config.notify,
        start_timeout: app.health.deadline,
        dir,
    }
}

/// The environment of the service of that colour.
pub(super) fn env(recipe: &Recipe, colour: Colour) -> BTreeMap<String, String> {
    let mut env = recipe.service.env.clone();
    env.insert("PORT".into(), address(recipe, colour).port().to_string());
    env
}

/// The check of a release with its placeholders filled in.
pub(super) fn check(recipe: &Recipe, colour: Colour, dir: &Path) -> Check {
    match &recipe.check {
        Check::Command(words) => Check::Command(fill(words, recipe, colour, dir)),
        check => check.clone(),
    }
}

pub(super) fn fill(words: &[String], recipe: &Recipe, colour: Colour, dir: &Path) -> Vec<String> {
    let bin = dir.join(&recipe.bin).display().to_string();
    let port = address(recipe, colour).port().to_string();
    words
        .iter()
        .map(|word| word.replace("{bin}", &bin).replace("{port}", &port).replace("{colour}", colour.name()))
        .collect()
}

/// Two ports that nobody has: the same two for the same app where that is possible.
pub(super) fn choose_ports(app: &App, taken: &HashSet<u16>) -> Option<ByColour<u16>> {
    let listens: HashSet<u16> = app.listen.iter().map(SocketAddr::port).collect();
    // Another daemon on this host may have an app of the same name, and not have started both services yet.
    let place = app.release_dir.as_os_str().as_bytes();
    let seed =
        *blake3::Hasher::new().update(app.name.as_str().as_bytes()).update(place).finalize().as_bytes();
    let span = PORTS.end - PORTS.start;
    let first = u16::from_le_bytes([seed[0], seed[1]]) % span;
    let mut free = (0..span)
        .map(|step| PORTS.start + (first + step) % span)
        .filter(|port| !taken.contains(port) && !listens.contains(port))
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    Some(ByColour { blue: free.next()?, green: free.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::app::{AppName, ReleaseBin};

    #[test]
    fn an_app_of_the_same_name_elsewhere_gets_other_ports() {
        let ports = |dir: &str, taken: &HashSet<u16>| {
            let name = AppName::new("web").unwrap();
            let app = crate::config::new_app(name, Vec::new(), dir.into(), ReleaseBin::Inside("web".into()));
            let ports = choose_ports(&app, taken).unwrap();
            HashSet::from([ports.blue, ports.green])
        };
        let here = ports("/srv/a", &HashSet::new());
        assert!(here.is_disjoint(&ports("/srv/b", &HashSet::new())));
        assert!(here.is_disjoint(&ports("/srv/a", &here)));
    }
}
