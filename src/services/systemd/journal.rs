//! The last lines of a service, from the journal.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::process::Command;
use tokio::time::timeout;

/// The journal is asked for the sake of a better message only: it may not hold anything up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last `count` lines that the processes of `unit` wrote since then, oldest first.
pub(super) async fn last_lines(unit: &str, since: Option<SystemTime>, count: usize) -> Vec<String> {
    // What a service wrote just before it died may still be on its way into the journal.
    let _ = run(Command::new("journalctl").arg("--sync")).await;
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--all", "--output=cat", &format!("--lines={count}")]);
    command.arg(format!("_SYSTEMD_UNIT={unit}"));
    if let Some(since) = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        command.arg(format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros()));
    }
    let Some(output) = run(&mut command).await else { return Vec::new() };
    // One message may have several lines.
    let mut lines: Vec<String> = String::from_utf8_lossy(&output).lines().map(plain).collect();
    lines.drain(..lines.len().saturating_sub(count));
    lines
}

async fn run(command: &mut Command) -> Option<Vec<u8>> {
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then_some(output.stdout)
}

/// A line without what would move the cursor of a terminal or change its colour.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| matches!(c, '@'..='~'));
            }
        } else if !c.is_control() || c == '\t' {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn terminal_sequences_are_taken_out() {
        assert_eq!(plain("\u{1b}[1;31merror\u{1b}[0m: a\tb\u{7}"), "error: a\tb");
        assert_eq!(plain("\u{1b}"), "");
    }
}
