//! The guard: a small process between the supervisor and one run of a service, so that nothing outlives dorc.
//!
//! It is this same program, called as `dorc guard --log FILE [--notify SOCKET] -- PROGRAM [ARGUMENT…]`. Its standard
//! input is a socket to the supervisor, and when that closes, however dorc ended, the guard ends all that descends
//! from it: as a subreaper it inherits what its descendants leave behind, so having no child left means that nothing is.

mod program;
mod run;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{getpid, set_child_subreaper, setsid};

use super::frames::{Frames, Order};
use run::Guard;

/// What a guard was called with.
struct Arguments {
    log: PathBuf,
    notify: Option<String>,
    command: Vec<OsString>,
}

/// Runs a guard; `arguments` are those after `guard`. Ends as the program ended, with 128 and the signal where one killed it.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(arguments) = parse(arguments) else { return ExitCode::from(2) };
    // Whoever started dorc on a terminal must not reach the services by Ctrl-C: they are dorc's to end.
    // It fails only where the guard leads a group, which is as good.
    let _ = setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let status = runtime.and_then(|runtime| runtime.block_on(guard(arguments)));
    ExitCode::from(status.unwrap_or(1))
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Arguments> {
    let mut arguments = arguments.into_iter();
    let (mut log, mut notify) = (None, None);
    loop {
        match arguments.next()?.to_str()? {
            "--log" => log = Some(PathBuf::from(arguments.next()?)),
            "--notify" => notify = Some(arguments.next()?.into_string().ok()?),
            "--" => break,
            _ => return None,
        }
    }
    let command: Vec<_> = arguments.collect();
    if command.is_empty() { None } else { Some(Arguments { log: log?, notify, command }) }
}

async fn guard(arguments: Arguments) -> io::Result<u8> {
    set_child_subreaper(Some(getpid()))?;
    // A copy that is closed on exec: the program's own standard input is /dev/null.
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let control = UnixStream::from(control);
    control.set_nonblocking(true)?;
    let mut frames = Frames::new(tokio::net::UnixStream::from_std(control)?);
    let Some(Order::Start(env)) = frames.next().await else { return Ok(1) };
    let notify = arguments.notify.as_deref().map(bind).transpose()?;
    let guard = Guard::start(frames, &arguments, env, notify).await?;
    let status = match guard {
        Some(guard) => guard.run().await?,
        None => 127,
    };
    if let Some(path) = arguments.notify.filter(|path| !path.starts_with('@')) {
        // The next run removes it where this one could not.
        let _ = std::fs::remove_file(path);
    }
    Ok(status)
}

/// A socket for the program's messages; `@name` is an abstract one.
fn bind(name: &str) -> io::Result<tokio::net::UnixDatagram> {
    let socket = match name.strip_prefix('@') {
        Some(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => match std::fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => UnixDatagram::bind(name)?,
        },
    };
    socket.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(socket)
}
