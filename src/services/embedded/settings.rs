//! What a guard needs to run a service: paths, environment, command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{blocking, failure, fits_socket_address};
use crate::model::app::Service;
use crate::services::ServiceError;

/// The variables of dorc's own environment that services get too.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Where programs are looked for if dorc itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A service, and all that its guards are called with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) service: Service,
    guard_program: PathBuf,
    log: PathBuf,
    notify: Option<String>,
    environment: Vec<String>,
}

impl Settings {
    /// Makes the folders and reads the environment; `dir` is the app's own.
    pub(super) async fn prepare(
        guard_program: &Path,
        dir: PathBuf,
        log: PathBuf,
        service: &Service,
    ) -> Result<Self, ServiceError> {
        let (guard_program, service) = (guard_program.to_owned(), service.clone());
        let prepared = blocking(move || Ok(Self::prepare_now(guard_program, &dir, log, service))).await;
        prepared.unwrap_or_else(|error| Err(failure(error.to_string())))
    }

    fn prepare_now(
        guard_program: PathBuf,
        dir: &Path,
        log: PathBuf,
        service: Service,
    ) -> Result<Self, ServiceError> {
        let id = &service.id;
        let state = dir.join("state");
        fs::create_dir_all(&state)
            .map_err(|error| failure(format!("the folder {} can't be made: {error}", state.display())))?;
        if !service.working_dir.is_dir() {
            return Err(failure(format!(
                "its working folder {} does not exist",
                service.working_dir.display()
            )));
        }
        if let Some(user) = &service.user {
            tracing::warn!("{id}: service.user = {user:?} is for systemd; here it runs as the user of dorc");
        }
        let notify = service.notify.then(|| notify_name(dir, &service));
        let environment = environment(&service, &state)?;
        Ok(Self { guard_program, log, notify, environment, service })
    }

    /// The call of a guard; its standard input is still to be set.
    pub(super) fn guard(&self) -> Command {
        let mut command = Command::new(&self.guard_program);
        command.arg("guard").arg("--log").arg(&self.log);
        if let Some(notify) = &self.notify {
            command.arg("--notify").arg(notify);
        }
        command.arg("--").args(&self.service.start);
        // The service's own environment goes over the socket: an LD_PRELOAD is not meant for the guard.
        command.env_clear().current_dir(&self.service.working_dir);
        command
    }

    /// The program's environment, as `NAME=VALUE`.
    pub(super) fn environment(&self) -> Vec<String> {
        self.environment.clone()
    }
}

/// The name of the socket that the program reports to: a path, where it is not too long for one.
fn notify_name(dir: &Path, service: &Service) -> String {
    let path = dir.join(format!("{}.notify", service.id.colour));
    match path.to_str() {
        Some(text) if fits_socket_address(&path) => text.to_owned(),
        _ => format!("@dorc-{}-{}", std::process::id(), service.id),
    }
}

fn environment(service: &Service, state: &Path) -> Result<Vec<String>, ServiceError> {
    let inherited = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let mut all = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    all.extend(inherited);
    if let Some(state) = state.to_str() {
        all.insert("STATE_DIRECTORY".to_owned(), state.to_owned());
    }
    if let Some(path) = &service.env_file {
        let text = fs::read_to_string(path)
            .map_err(|error| failure(format!("its env_file {} can't be read: {error}", path.display())))?;
        all.extend(text.lines().filter_map(variable));
    }
    if let Some((name, _)) = service.credentials.iter().find(|(_, credential)| credential.encrypted) {
        return Err(failure(format!("its credential {name} is encrypted, which only systemd can open")));
    }
    if let Some(dir) = service.credentials.values().find_map(|credential| credential.path.parent()?.to_str())
    {
        all.insert("CREDENTIALS_DIRECTORY".to_owned(), dir.to_owned());
    }
    // What the app file and dorc say themselves comes last, `PORT` above all.
    all.extend(service.env.clone());
    Ok(all.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// One line of an environment file, as systemd reads it: what is no assignment is left out.
fn variable(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = if let Some(value) = quoted('\'') {
        value.to_owned()
    } else {
        unescape(quoted('"').unwrap_or(value))
    };
    if name.is_empty() { None } else { Some((name.to_owned(), value)) }
}

fn unescape(text: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_are_read_as_systemd_reads_them() {
        let read = |line| variable(line).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(read("A=b c ").as_deref(), Some("A|b c"));
        assert_eq!(read("A=\"b \\\" c\"").as_deref(), Some("A|b \" c"));
        assert_eq!(read("A='b \\ c'").as_deref(), Some("A|b \\ c"));
        assert_eq!(read("A=x=y").as_deref(), Some("A|x=y"));
        assert_eq!(read("A=").as_deref(), Some("A|"));
        for nothing in ["", "# A=b", "; A=b", "A", "=b"] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
