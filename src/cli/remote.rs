//! `dorc remote`: the near side of a connection from another machine. It passes bytes on and understands none of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{Context, fail};
use crate::control::api::exit;
use crate::model::app::AppName;

/// How long the daemon may take to say that the connection is for one app.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `dorc remote`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only for deployments of this app, whoever asks
    #[arg(long)]
    app: Option<String>,
}

pub(super) fn run(context: &Context, options: &Options) -> anyhow::Result<ExitCode> {
    let path = &context.places.socket;
    let mut daemon = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => fail(
            exit::NOT_PERMITTED,
            format!("{} may only be used by root, the group dorc and the deployers of apps", path.display()),
        ),
        _ => fail(exit::NO_DAEMON, format!("no daemon answers on {}", path.display())),
    })?;
    if let Some(app) = &options.app {
        let app = AppName::new(app).map_err(|why| fail(exit::USAGE, why))?;
        limit(&mut daemon, &app).context("the connection could not be limited to one app")?;
    }
    let mut sender = daemon.try_clone()?;
    // It ends with the process, if not before.
    thread::spawn(move || {
        // Whatever is wrong, the other direction sees it as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut sender);
        let _ = sender.shutdown(Shutdown::Write);
    });
    pass(&mut daemon, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the daemon what the connection is for; nothing of the far side has been passed on by then.
fn limit(daemon: &mut UnixStream, app: &AppName) -> io::Result<()> {
    write!(daemon, "POST /v1/limit/{app} HTTP/1.1\r\nHost: dorc\r\nContent-Length: 0\r\n\r\n")?;
    daemon.set_read_timeout(Some(PATIENCE))?;
    // Byte by byte, so that nothing of what follows is taken.
    let mut answer = BufReader::with_capacity(1, &mut *daemon).lines();
    let status = answer.next().transpose()?.unwrap_or_default();
    if !status.starts_with("HTTP/1.1 204 ") {
        return Err(io::Error::other(format!("the daemon said {status:?}")));
    }
    for line in answer {
        if line?.is_empty() {
            break;
        }
    }
    daemon.set_read_timeout(None)
}

/// As `io::copy`, but without a moment in which something waits for more.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&chunk[..count]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
