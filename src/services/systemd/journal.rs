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
    // With `--since` and without `--reverse`, `--lines` would be the first ones. Of all formats the export format alone keeps
    // messages of several lines apart.
    command.args(["--quiet", "--no-pager", "--reverse", "--output=export", "--output-fields=MESSAGE"]);
    command.arg(format!("--lines={count}"));
    command.arg(format!("_SYSTEMD_UNIT={unit}"));
    if let Some(since) = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        command.arg(format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros()));
    }
    let Some(output) = run(&mut command).await else { return Vec::new() };
    let newest_first = messages(&output);
    let mut lines: Vec<String> = newest_first
        .iter()
        .rev()
        .flat_map(|message| message.lines().map(plain).collect::<Vec<_>>())
        .collect();
    lines.drain(..lines.len().saturating_sub(count));
    lines
}

/// The messages in the journal's export format: `NAME=value` in a line, or, for values that are more than a line of text,
/// `NAME`, and then the length in 8 bytes and the value.
fn messages(mut export: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(end) = export.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&export[..end], &export[end + 1..]);
        export = rest;
        if let Some(text) = line.strip_prefix(b"MESSAGE=") {
            messages.push(String::from_utf8_lossy(text).into_owned());
        } else if !line.is_empty() && !line.contains(&b'=') {
            let Some((length, rest)) = export.split_first_chunk() else { break };
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((value, rest)) = rest.split_at_checked(length) else { break };
            if line == b"MESSAGE" {
                messages.push(String::from_utf8_lossy(value).into_owned());
            }
            export = rest;
        }
    }
    messages
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
    use super::{messages, plain};

    #[test]
    fn messages_of_several_lines_are_one() {
        let mut export = b"__CURSOR=x\nMESSAGE=two\n\n__CURSOR=y\nMESSAGE\n".to_vec();
        export.extend(7_u64.to_le_bytes());
        export.extend(b"one\none\n\n");
        assert_eq!(messages(&export), ["two", "one\none"]);
        assert_eq!(messages(&export[..export.len() - 5]), ["two"]);
    }

    #[test]
    fn terminal_sequences_are_taken_out() {
        assert_eq!(plain("\u{1b}[1;31merror\u{1b}[0m: a\tb\u{7}"), "error: a\tb");
        assert_eq!(plain("\u{1b}"), "");
    }
}
