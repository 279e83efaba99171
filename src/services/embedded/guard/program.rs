//! How a program is started, and how its end reads.

use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitStatus};
use tokio::time::sleep;

use super::super::explain::explain;

/// How often, and after which pauses, a program that is open for writing is tried again.
const BUSY: (u32, Duration) = (10, Duration::from_millis(20));

/// As `spawn`, for a program that was put there a moment ago: a process that was forked meanwhile may hold it open.
pub(super) async fn spawn_fresh<S: AsRef<OsStr>>(
    command: &[S],
    env: &[String],
    output: &PipeWriter,
) -> Result<Pid, String> {
    for _ in 0..BUSY.0 {
        match try_spawn(command, env, output) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY.1).await,
            result => return result.map_err(|error| reason(command, &error)),
        }
    }
    spawn(command, env, output)
}

/// Starts a command in a process group of its own; the error is the reason in words.
pub(super) fn spawn<S: AsRef<OsStr>>(
    command: &[S],
    env: &[String],
    output: &PipeWriter,
) -> Result<Pid, String> {
    try_spawn(command, env, output).map_err(|error| reason(command, &error))
}

fn reason<S: AsRef<OsStr>>(command: &[S], error: &io::Error) -> String {
    command
        .first()
        .map_or_else(|| "the command is empty".to_owned(), |program| explain(Path::new(program), error))
}

fn try_spawn<S: AsRef<OsStr>>(command: &[S], env: &[String], output: &PipeWriter) -> io::Result<Pid> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.iter().filter_map(|variable| variable.split_once('=')))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    // It is reaped with all others, by `wait`.
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::Other.into())
}

/// The exit code that stands for that end, as shells have it.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// That end in words: `exit status 3`, `killed by SIGSEGV`.
pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
        (None, None) => "an unknown end".to_owned(),
    }
}

fn signal_name(number: i32) -> String {
    match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => "SIGABRT".to_owned(),
        Some(Signal::ALARM) => "SIGALRM".to_owned(),
        Some(Signal::POWER) => "SIGPWR".to_owned(),
        Some(other) => format!("{other:?}").replace("Signal::", "SIG").replace('"', ""),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_usual_names() {
        let names = [1, 6, 9, 11, 13, 14, 15, 30, 40].map(signal_name);
        assert_eq!(
            names,
            [
                "SIGHUP",
                "SIGABRT",
                "SIGKILL",
                "SIGSEGV",
                "SIGPIPE",
                "SIGALRM",
                "SIGTERM",
                "SIGPWR",
                "signal 40"
            ]
        );
    }
}
