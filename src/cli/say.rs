//! How things are said: on a terminal in colour and in motion, elsewhere in plain lines.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use crate::control::api;
use crate::model::colour::Colour;

/// The width to which the left part of a step is padded.
const LEFT: usize = 30;

/// How an upload is shown on a terminal.
const BAR: &str = " uploading {bar:30} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}";

/// What was said since [`keep`]; `None` where it is printed.
static KEPT: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn lock_kept() -> MutexGuard<'static, Option<Vec<String>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on what is said is kept rather than printed, for those who make one document of it.
pub(super) fn keep() {
    lock_kept().get_or_insert_default();
}

/// What was said since the last call; nothing where it is printed.
pub(super) fn kept() -> Vec<String> {
    lock_kept().as_mut().map(std::mem::take).unwrap_or_default()
}

/// From now on what is said is printed again.
pub(super) fn print_again() {
    *lock_kept() = None;
}

/// Whether someone looks at it on a terminal, where it may move and have colours.
fn is_seen() -> bool {
    io::stdout().is_terminal() && lock_kept().is_none()
}

/// An ANSI style.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    Green,
    Blue,
    Red,
    Bold,
    Dim,
}

impl Style {
    pub(super) fn of(colour: Colour) -> Self {
        match colour {
            Colour::Green => Self::Green,
            Colour::Blue => Self::Blue,
        }
    }

    /// `text` in this style, where standard output shows styles.
    pub(super) fn paint(self, text: &str) -> String {
        if !is_seen() || std::env::var_os("NO_COLOR").is_some() {
            return text.to_owned();
        }
        let code = match self {
            Self::Green => 32,
            Self::Blue => 34,
            Self::Red => 31,
            Self::Bold => 1,
            Self::Dim => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Paints a colour's name, and other text that begins with one, in that colour.
pub(super) fn in_colour(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or_default();
    match first.parse::<Colour>() {
        Ok(colour) => Style::of(colour).paint(text),
        Err(()) => text.to_owned(),
    }
}

/// Prints a line. That nobody reads it any more is no reason to stop what is being done.
pub(super) fn line(text: &str) {
    match lock_kept().as_mut() {
        Some(kept) => kept.extend(text.lines().map(str::to_owned)),
        None => drop(writeln!(io::stdout(), "{text}")),
    }
}

/// As `line`, on standard error.
fn error_line(text: &str) {
    match lock_kept().as_mut() {
        Some(kept) => kept.extend(text.lines().map(str::to_owned)),
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// A step that is done.
pub(super) fn done(what: &str, detail: &str) {
    line(&step("✓", what, detail));
}

/// A line of a table of labels and texts below an answer.
pub(super) fn hint(label: &str, text: &str) {
    line(&format!("  {label:<14}{text}"));
}

/// What went wrong, with its first line marked.
pub(super) fn error(text: &str) {
    error_line(&format!("{} {}", Style::Red.paint("✗"), plain(text)));
}

/// Something that the user should know although nothing went wrong.
pub(super) fn warning(text: &str) {
    error_line(&format!("! {}", plain(text)));
}

/// Text of others without the control characters that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn step(mark: &str, what: &str, detail: &str) -> String {
    let pad = LEFT.saturating_sub(what.chars().count());
    let what = in_colour(what);
    if detail.is_empty() { format!("{mark} {what}") } else { format!("{mark} {what}{:pad$} {detail}", "") }
}

/// Tells the steps of a command that waits.
pub(super) struct Steps {
    json: bool,
    is_silent: bool,
    /// Only on a terminal: the step that is under way.
    moving: Option<ProgressBar>,
    /// Elsewhere: what was said last, so that it is not said again.
    last: String,
}

impl Steps {
    /// Who wants one document, and no waiting, gets no steps.
    pub(super) const fn new(json: bool, no_wait: bool) -> Self {
        Self { json, is_silent: json && no_wait, moving: None, last: String::new() }
    }

    /// Tells nothing.
    pub(super) const fn none() -> Self {
        Self::new(true, true)
    }

    /// Tells one event.
    pub(super) fn event(&mut self, event: &api::Event) {
        match event {
            _ if self.is_silent => {}
            api::Event::Uploading { sent, bytes } => self.uploading(*sent, *bytes),
            event if self.json => line(&api::to_json(event)),
            api::Event::Uploaded { release, files, bytes } => {
                self.finished(&format!("{release} is uploaded"), &size(*files, *bytes));
            }
            api::Event::Waiting { what } => self.under_way("waiting for the upload", &plain(what)),
            api::Event::Trying { colour, release } => {
                self.under_way(&format!("{colour} {release}"), "is coming up");
            }
            api::Event::Ready { colour, release, answer } => {
                self.finished(&format!("{colour} {release} is ready"), &plain(answer));
            }
            api::Event::Failed { .. } | api::Event::Answer(_) => self.clear(),
            api::Event::Moved { from, to, .. } => match from {
                Some(from) => self.finished("traffic moved", &format!("{from} → {to}")),
                None => self.finished(&format!("traffic goes to {to}"), ""),
            },
            api::Event::Draining { colour, open, seconds_left } => {
                let left = seconds_left.map(|left| format!(", {left} s left")).unwrap_or_default();
                let connections = count(*open, "connection");
                if is_seen() {
                    self.under_way(&format!("draining {colour}"), &format!("{connections}{left}"));
                } else if !self.last.starts_with("draining") {
                    self.under_way(&format!("draining {colour}"), &connections);
                }
            }
            api::Event::Settled { tally } => self.finished("settled", &closed(tally)),
            api::Event::Canary { colour, release, share } => {
                self.finished(&format!("{colour} {release} is a canary"), &format!("{share} of the clients"));
            }
            api::Event::CanaryEnded { colour, release } => {
                self.finished(&format!("{colour} {release} is a canary no more"), "");
            }
            api::Event::Baking { release, seconds_left, .. } => {
                self.under_way(&format!("watching {release}"), &format!("{seconds_left} s left"));
            }
            api::Event::Baked { release, .. } => self.finished(&format!("{release} has proved itself"), ""),
            api::Event::Bad { colour, release, failure } => {
                self.finished(&format!("{colour} {release} is bad"), &plain(&failure.reason));
            }
            api::Event::Unhealthy { colour, failure, .. } => {
                self.finished(&format!("{colour} is not healthy"), &plain(&failure.reason));
            }
            api::Event::Healthy { colour, answer, .. } => {
                self.finished(&format!("{colour} is healthy again"), &plain(answer));
            }
            api::Event::Exited { colour, how } => {
                self.finished(
                    &format!("{colour} ended by itself"),
                    &format!("{}; it is started again", plain(how)),
                );
            }
        }
    }

    /// On a terminal a bar; elsewhere it is told at each quarter.
    fn uploading(&mut self, sent: u64, bytes: u64) {
        let bytes = bytes.max(1);
        if is_seen() && !self.json {
            let bar = self.moving.get_or_insert_with(|| {
                let bar = ProgressBar::new(bytes);
                if let Ok(style) = ProgressStyle::with_template(BAR) {
                    bar.set_style(style);
                }
                bar
            });
            return bar.set_position(sent);
        }
        let quarter = format!("{} % of {}", sent.saturating_mul(4) / bytes * 25, DecimalBytes(bytes));
        if !self.json {
            self.under_way("uploading", &quarter);
        } else if self.last != quarter {
            line(&api::to_json(&api::Event::Uploading { sent, bytes }));
            self.last = quarter;
        }
    }

    fn finished(&mut self, what: &str, detail: &str) {
        self.clear();
        done(what, detail);
    }

    fn under_way(&mut self, what: &str, detail: &str) {
        let text = step("", what, detail);
        if !is_seen() {
            let said = format!("{what} {detail}");
            if self.last != said {
                line(&format!("…{text}"));
                self.last = said;
            }
            return;
        }
        let bar = self.moving.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner}{msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(text);
    }

    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.moving.take() {
            bar.finish_and_clear();
        }
    }
}

/// `1 connection`, `2 connections`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `14.20 MB, 3 files`.
pub(super) fn size(files: u64, bytes: u64) -> String {
    format!("{}, {}", DecimalBytes(bytes), count(usize::try_from(files).unwrap_or(usize::MAX), "file"))
}

fn closed(tally: &api::Tally) -> String {
    if *tally == api::Tally::default() {
        return "no connection was open".into();
    }
    let mut parts = Vec::new();
    if tally.finished > 0 {
        parts.push(format!("{} finished by themselves", tally.finished));
    }
    if tally.quiet > 0 {
        parts.push(format!("{} quiet ones closed", tally.quiet));
    }
    if tally.cut > 0 {
        parts.push(format!("{} cut when the time was up", tally.cut));
    }
    parts.join(", ")
}

/// Says how a command ended; for a failure all that would otherwise have to be looked for.
pub(super) fn answer(answer: &api::Answer, json: bool) {
    if json {
        return line(&api::to_json(answer));
    }
    if answer.exit == api::exit::DONE {
        return;
    }
    error(&answer.message);
    let app = &answer.app;
    if let Some(failure) = &answer.failure {
        let log: Vec<String> = failure.log.iter().map(|text| format!("    {}", plain(text))).collect();
        let mut lines = log;
        if let Some(probe) = &failure.last_probe {
            lines.push(format!("  last answer: {}", plain(probe)));
        }
        lines.push(match (&answer.active, &answer.release) {
            (Some(colour), Some(release)) if answer.exit == api::exit::ROLLED_BACK => {
                format!("  {colour} {release} serves again.")
            }
            (Some(colour), Some(release)) if answer.active == answer.failed_colour => {
                format!("  {colour} {release} still gets the traffic.")
            }
            (Some(colour), Some(release)) => {
                format!("  {colour} {release} goes on serving; nothing was changed.")
            }
            _ => "  No release is active yet.".into(),
        });
        let colour = answer.failed_colour.as_deref().map(|colour| format!(" --{colour}")).unwrap_or_default();
        lines.push(match answer.failed_release {
            Some(_) => {
                format!("  logs: dorc logs {app}{colour}      once mended: upload it, or dorc update {app}")
            }
            None => "  once mended: upload it again".into(),
        });
        error_line(&lines.join("\n"));
    }
}
