//! The first dorc's commands: lines for systemd, made into words of ours.

use std::path::Path;

use toml::de::DeValue;

use crate::config::commands;
use crate::config::problem::Wrong;
use crate::config::values::{self, shown};

/// Where systemd looks for a program that has no path.
const SEARCH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a command can speak of.
pub(super) struct Context<'a> {
    /// The service's own name, which was the name of its program as well.
    pub(super) service: Option<String>,
    /// Its port, which was written into the command.
    pub(super) port: Option<u16>,
    /// Where the release binary is uploaded.
    pub(super) upload: &'a Path,
}

impl Context<'_> {
    /// The start command.
    pub(super) fn start(&self, value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
        self.words(&values::text(value)?)
    }

    /// The reload command; `None` where it sends SIGHUP, which dorc does by itself.
    pub(super) fn reload(&self, value: &DeValue<'_>) -> Result<Option<Vec<String>>, Wrong> {
        self.unless_signal(value, "HUP")
    }

    /// The stop command; `None` where it sends SIGTERM, which is what stops a service anyway.
    pub(super) fn stop(&self, value: &DeValue<'_>) -> Result<Option<Vec<String>>, Wrong> {
        self.unless_signal(value, "TERM")
    }

    fn unless_signal(&self, value: &DeValue<'_>, signal: &str) -> Result<Option<Vec<String>>, Wrong> {
        let mut lines = values::list(value, "commands", values::text)?;
        lines.retain(|line| !line.trim().is_empty());
        let line = match lines.as_slice() {
            [] => return Ok(None),
            [line] => line,
            several => {
                let message = format!("there are {} commands", several.len());
                return Err(Wrong::new(message, "one is run, so put them into a script"));
            }
        };
        if self.signal_of(line).is_some_and(|sent| sent == signal) {
            return Ok(None);
        }
        self.words(line).map(Some)
    }

    /// The signal that a `kill` or `killall` sends to this service's process and to no other.
    fn signal_of(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (program, rest) = words.split_first()?;
        let (target, options) = rest.split_last()?;
        let ours = match program.rsplit('/').next()? {
            "kill" => matches!(*target, "$MAINPID" | "${MAINPID}"),
            "killall" => self.service.as_deref() == Some(*target),
            _ => false,
        };
        let signal = match options {
            [] => "TERM",
            ["-s", signal] => signal,
            [signal] => signal.strip_prefix('-')?,
            _ => return None,
        };
        let signal = signal.strip_prefix("SIG").unwrap_or(signal);
        let name = match signal {
            "1" => "HUP",
            "15" => "TERM",
            other => other,
        };
        ours.then(|| name.to_owned())
    }

    fn words(&self, line: &str) -> Result<Vec<String>, Wrong> {
        if let Some(sign) = line.chars().find(|c| matches!(c, '$' | '%')) {
            return Err(Wrong::new(
                format!("{} has a {sign}, which systemd filled in for the first dorc", shown(line)),
                "nothing is filled in now, so write what was meant, or put the command into a script",
            ));
        }
        let mut words = commands::words(line)?;
        words[0] = self.program(&words[0])?;
        if let Some(port) = self.port {
            words.iter_mut().skip(1).for_each(|word| placehold(word, port));
        }
        Ok(words)
    }

    fn program(&self, program: &str) -> Result<String, Wrong> {
        let own = self.service.as_deref().is_some_and(|service| {
            program == service || program.strip_prefix("/usr/local/bin/") == Some(service)
        });
        if own || Path::new(program) == self.upload {
            return Ok("{bin}".to_owned());
        }
        if self.service.is_none() {
            // The wrong name has been told, and what follows from it would only hide it.
            return Ok(program.to_owned());
        }
        if program.contains('/') || program == "{bin}" {
            return commands::check_program(program).map(|()| program.to_owned());
        }
        let found =
            SEARCH.iter().map(|dir| format!("{dir}/{program}")).find(|path| Path::new(path).is_file());
        found.map_or_else(|| commands::check_program(program).map(|()| program.to_owned()), Ok)
    }
}

/// The service's own port in a word, as `8081` or `--port=8081`, becomes `{port}`.
fn placehold(word: &mut String, port: u16) {
    let Some(before) = word.strip_suffix(&port.to_string()) else { return };
    if before.is_empty() || before.ends_with(['=', ':']) {
        *word = format!("{before}{{port}}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_to_the_own_process_needs_no_command() {
        let context = Context {
            service: Some("blue-web".to_owned()),
            port: Some(8081),
            upload: Path::new("/srv/web/web"),
        };
        let signal = |line| context.signal_of(line);
        assert_eq!(signal("killall blue-web").as_deref(), Some("TERM"));
        assert_eq!(signal("/usr/bin/killall -SIGHUP blue-web").as_deref(), Some("HUP"));
        assert_eq!(signal("/bin/kill -s HUP $MAINPID").as_deref(), Some("HUP"));
        assert_eq!(signal("kill -15 ${MAINPID}").as_deref(), Some("TERM"));
        assert_eq!(signal("killall green-web"), None);
        assert_eq!(signal("kill 1"), None);
        assert_eq!(signal("killall blue-web blue-web blue-web"), None);
    }

    #[test]
    fn the_port_is_recognised_where_it_is_the_whole_value() {
        let held = |word: &str| {
            let mut word = word.to_owned();
            placehold(&mut word, 80);
            word
        };
        assert_eq!(held("80"), "{port}");
        assert_eq!(held("--port=80"), "--port={port}");
        assert_eq!(held("127.0.0.1:80"), "127.0.0.1:{port}");
        assert_eq!(held("180"), "180");
        assert_eq!(held("--size-80"), "--size-80");
    }
}
