//! What only this host can tell about an app: whether what it names is there, and fit for it.

mod users;

use std::fs::{self, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::checks::overlap;
use super::problem::{Problem, Wrong};
use crate::model::app::{App, ReleaseBin};
use users::User;

/// Writable for everybody.
const ANYBODY: u32 = 0o002;

/// The host that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Where `/etc` and `/var` are; `/` but in tests.
    pub root: &'a Path,
    /// Listen addresses that dorc itself holds, which are no other program's.
    pub held: &'a [SocketAddr],
}

impl Default for Host<'_> {
    fn default() -> Self {
        Self { root: Path::new("/"), held: &[] }
    }
}

/// What on this host stands against `app`; warnings among it. It reads files and may run `getent`, so call it
/// where waiting does no harm.
#[must_use]
pub fn host_problems(app: &App, host: &Host<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(release_dir(&app.release_dir));
    if let ReleaseBin::Outside(path) = &app.release_bin {
        problems.extend(outside_binary(path));
    }
    problems.extend(app.service.env_file.as_deref().and_then(env_file));
    problems.extend(app.service.credentials.iter().filter_map(|(name, it)| credential(name, &it.path)));
    problems.extend(people(app, host));
    problems.extend(state_directory(app, host));
    problems.extend(app.listen.iter().filter_map(|address| listen(*address, host)));
    problems
}

fn release_dir(dir: &Path) -> Option<Problem> {
    let shown = dir.display();
    let error =
        |message: String, mend: String| Some(Problem::of_key("release_dir", Wrong::new(message, mend)));
    match fs::metadata(dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            error(format!("{shown} does not exist"), format!("make it: mkdir -p {shown}"))
        }
        Err(why) => error(format!("{shown} can't be looked at: {why}"), "let root reach it".to_owned()),
        Ok(found) if !found.is_dir() => {
            error(format!("{shown} is not a directory"), "name the directory that is uploaded to".to_owned())
        }
        Ok(found) if found.mode() & ANYBODY != 0 => {
            let message = format!("everybody on this host may write to {shown}, and so deploy this app");
            let mend = format!("leave it to who uploads: chmod o-w {shown}");
            Some(Problem::of_key("release_dir", Wrong::new(message, mend)).into_warning())
        }
        Ok(_) => None,
    }
}

fn outside_binary(path: &Path) -> Option<Problem> {
    let found = fs::metadata(path).ok()?;
    let message = format!("{} is not a file", path.display());
    (!found.is_file()).then(|| Problem::of_key("release_bin", Wrong::new(message, "name the program itself")))
}

fn credential(name: &str, path: &Path) -> Option<Problem> {
    let shown = path.display();
    let message = match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(found) if found.is_file() => return None,
        Ok(_) => format!("{shown} is not a file"),
        Err(why) => format!("{shown} can't be read: {why}"),
    };
    let mend = "name a file with the secret, or leave the credential out";
    Some(Problem::of_key(&format!("service.credentials.{name}"), Wrong::new(message, mend)))
}

fn env_file(path: &Path) -> Option<Problem> {
    const KEY: &str = "service.env_file";
    let shown = path.display();
    let found = match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(found) => found,
        Err(why) => {
            let mend = "make the file, or leave the key out";
            return Some(Problem::of_key(KEY, Wrong::new(format!("{shown} can't be read: {why}"), mend)));
        }
    };
    if !found.is_file() {
        return Some(Problem::of_key(
            KEY,
            Wrong::new(format!("{shown} is not a file"), "name a file of NAME=value lines"),
        ));
    }
    let others = found.mode() & 0o007;
    (others != 0).then(|| {
        let may = if others & ANYBODY != 0 { "write" } else { "read" };
        let message = format!("everybody on this host may {may} {shown}");
        Problem::of_key(KEY, Wrong::new(message, format!("keep it to root: chmod 0600 {shown}")))
            .into_warning()
    })
}

/// The users whom the file names.
fn people(app: &App, host: &Host<'_>) -> Vec<Problem> {
    let service = app.service.user.iter().map(|name| ("service.user", name));
    let named = service.chain(app.deployers.iter().map(|name| ("deployers", name)));
    named
        .filter(|(_, name)| users::find(host.root, name).is_none())
        .map(|(key, name)| {
            let message = format!("there is no user {name} on this host");
            Problem::of_key(key, Wrong::new(message, format!("add one: useradd --system {name}")))
        })
        .collect()
}

/// systemd gives `/var/lib/{app}` to the app's user with all that is in it, so it must not be somebody else's.
fn state_directory(app: &App, host: &Host<'_>) -> Option<Problem> {
    let dir = host.root.join("var/lib").join(app.name.as_str());
    let found = fs::symlink_metadata(&dir).ok()?;
    if is_ours(app, host, &dir, &found) {
        return None;
    }
    let message = format!("{} exists, and systemd would hand all of it to this app", dir.display());
    let mend = "choose another name for the app, or move that directory away if it is not needed";
    Some(Problem::of_file(Wrong::new(message, mend)))
}

fn is_ours(app: &App, host: &Host<'_>, dir: &Path, found: &Metadata) -> bool {
    let Some(name) = &app.service.user else {
        // A dynamic user's directory is kept under `private`, which only root may enter.
        let private = Path::new("private").join(app.name.as_str());
        return found.is_symlink() && fs::read_link(dir).is_ok_and(|target| target.ends_with(private));
    };
    users::find(host.root, name).is_none_or(|User { uid }| found.uid() == uid)
}

/// Whether another program has the address.
fn listen(address: SocketAddr, host: &Host<'_>) -> Option<Problem> {
    if host.held.iter().any(|held| overlap(*held, address)) {
        return None;
    }
    let port = address.port();
    let (message, mend) = match try_bind(address).err()? {
        Errno::ADDRINUSE => (
            format!("another program listens on {address}"),
            format!("stop it or choose another port; this shows it: ss -ltnp 'sport = :{port}'"),
        ),
        Errno::ADDRNOTAVAIL => (
            format!("this host does not have the address {}", address.ip()),
            "write one of its own (ip address), or \"0.0.0.0\" for all of them".to_owned(),
        ),
        Errno::ACCESS => (format!("port {port} is for root only"), "run dorc as root".to_owned()),
        other => (format!("{address} can't be listened on: {other}"), String::new()),
    };
    Some(Problem::of_key("listen", Wrong::new(message, mend)))
}

/// Binds without listening: no client can be caught by a socket that is about to go.
fn try_bind(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    // As every server does it; what listens already is in the way nevertheless, what has just ended is not.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)
}
