//! The daemon's own file, `dorc.toml`: what is not of one app.

use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeValue;

use super::document::Document;
use super::keys::DAEMON;
use super::problem::{Problem, Wrong};
use super::section::Section;
use super::{text_of, values};

/// What is not of one app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaemonConfig {
    /// Where `GET /metrics` is answered; `None`: only on the control socket.
    pub metrics: Option<SocketAddr>,
    /// Who is told of what happens.
    pub events: Option<EventsConfig>,
}

/// Who is told of what happens to apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// A program and its arguments, which get each event on their standard input.
    pub command: Vec<String>,
    /// Which events.
    pub which: Which,
}

/// Which events somebody is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Failures that nobody saw who asked for something, and every rollback.
    Failures,
    /// All.
    All,
}

/// Reads the file; without one all is as by default.
///
/// # Errors
/// All the problems of the file, in the order of its lines, each of them with its path.
pub fn load_daemon(path: &Path) -> Result<DaemonConfig, Vec<Problem>> {
    if !path.exists() {
        return Ok(DaemonConfig::default());
    }
    let loaded = text_of(path).map_err(|wrong| vec![Problem::of_file(wrong)]).and_then(|text| read(&text));
    loaded.map_err(|mut problems| {
        problems.iter_mut().for_each(|problem| problem.file = Some(path.to_owned()));
        problems
    })
}

fn read(text: &str) -> Result<DaemonConfig, Vec<Problem>> {
    let document = Document::new(text, None);
    let table = document.parse()?;
    let top = Section::top(&document, &DAEMON, &table);
    top.refuse_unknown();
    let config =
        DaemonConfig { metrics: top.get("metrics", values::address), events: events(&top.section("events")) };
    document.finish().map(|_| config)
}

fn events(section: &Section<'_, '_>) -> Option<EventsConfig> {
    if !section.is_there() {
        return None;
    }
    section.refuse_unknown();
    let known = [("failures", Which::Failures), ("all", Which::All)];
    let which = section.get("which", |value| values::one_of(value, &known)).unwrap_or(Which::Failures);
    let command = section.require("command", "\"/usr/local/bin/tell-the-team\"", words)?;
    Some(EventsConfig { command, which })
}

fn words(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let text = values::text(value)?;
    match shell_words::split(&text) {
        Ok(words) if words.is_empty() => Err(Wrong::new("the command is empty", "write a program")),
        Ok(words) => Ok(words),
        Err(_) => Err(Wrong::new(format!("a quote in {} is not closed", values::shown(&text)), "close it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(""), Ok(DaemonConfig::default()));
        let config =
            read("metrics = 9464\n[events]\ncommand = \"tell 'the team'\"\nwhich = \"all\"\n").unwrap();
        assert_eq!(config.metrics, Some(([127, 0, 0, 1], 9464).into()));
        let events = config.events.unwrap();
        assert_eq!((events.command, events.which), (vec!["tell".into(), "the team".into()], Which::All));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let said =
            |text: &str| -> Vec<String> { read(text).unwrap_err().iter().map(ToString::to_string).collect() };
        assert_eq!(said("metric = 1\n"), ["1: metric: there is no such key; did you mean metrics?"]);
        assert_eq!(
            said("[events]\nwhich = \"all\"\n"),
            [
                "events.command: this key is missing; add command = \"/usr/local/bin/tell-the-team\" to [events]"
            ]
        );
        assert!(said("metrics = \"here\"\n[events]\ncommand = \"'\"\n").len() == 2);
        assert!(said("listen = 80\n")[0].contains("known here are metrics, events"));
    }
}
