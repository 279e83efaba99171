//! A command that must exit with 0.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::{Answer, EXCERPT, Subject, describe, excerpt, milliseconds, no_answer};

/// The variables of dorc's own environment that a command gets.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// How much of the end of the output is kept: its last line is what is told.
const TAIL: usize = 4096;

/// Runs the command once, not through a shell.
pub(super) async fn probe(words: &[String], subject: Subject<'_>, timeout: Duration) -> Answer {
    let begin = Instant::now();
    let name = words.first().map_or("", |program| program.rsplit('/').next().unwrap_or(program));
    let failed = |reason: &str| format!("{name}: {reason}");
    let (mut group, mut output) = start(words, subject).map_err(|error| failed(&describe(&error)))?;
    let mut tail = Vec::new();
    let status = match timeout_at(begin + timeout, finish(&mut group.0, &mut output, &mut tail)).await {
        Err(_) => return Err(format!("{}{}", failed(&no_answer(timeout)), last_line(&tail))),
        Ok(Err(error)) => return Err(failed(&describe(&error))),
        Ok(Ok(status)) => status,
    };
    let answer = format!("{name} {} in {}{}", in_words(status), milliseconds(begin), last_line(&tail));
    if status.success() { Ok(answer) } else { Err(answer) }
}

/// A process group that is killed unless its leader has ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may end this very moment.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn start(words: &[String], subject: Subject<'_>) -> io::Result<(Group, pipe::Receiver)> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    // What is relative is meant relative to the folder that the command runs in.
    let path = if program.contains('/') { subject.dir.join(program) } else { Path::new(program).to_owned() };
    let (reader, writer) = io::pipe()?;
    let child = Command::new(path)
        .args(arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(subject.env)
        .current_dir(subject.dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    Ok((Group(child), pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// Waits for the command itself; what it may have left in the background is not waited for.
async fn finish(
    child: &mut Child,
    output: &mut pipe::Receiver,
    tail: &mut Vec<u8>,
) -> io::Result<ExitStatus> {
    let mut open = true;
    loop {
        tokio::select! {
            status = child.wait() => {
                // What it wrote last, the runtime may not have seen yet.
                take(tail, |buffer| Ok(rustix::io::read(&*output, buffer)?));
                return status;
            }
            readable = output.readable(), if open => {
                readable?;
                open = take(tail, |buffer| output.try_read(buffer));
            }
        }
    }
}

/// Takes what is there, but not for ever; false at the end of the output.
fn take(tail: &mut Vec<u8>, read: impl Fn(&mut [u8]) -> io::Result<usize>) -> bool {
    let mut buffer = [0; TAIL];
    for _ in 0..64 {
        match read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => tail.extend_from_slice(&buffer[..count]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    true
}

fn last_line(output: &[u8]) -> String {
    let line = output.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    excerpt(&line[..line.len().min(EXCERPT)])
}

fn in_words(status: ExitStatus) -> String {
    status.code().map_or_else(|| format!("ended by {status}"), |code| format!("exit status {code}"))
}
