//! From an app file as it is written to a valid [`App`], or its problems.
//!
//! [`file`] reads dorc's own format and [`seed`] the first dorc's. Both walk the parsed table with the
//! [`section`] reader, which knows where every value stands and which keys nobody asked for, so that one
//! reading tells all the problems of a file.

pub mod conflicts;
pub mod daemon;
pub mod defaults;
pub mod file;
pub mod host;
pub mod keys;
pub mod problem;
pub mod render;
pub mod seed;

mod checks;
mod commands;
mod document;
mod paths;
mod section;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use conflicts::conflicts;
pub use daemon::{DaemonConfig, EventsConfig, Which, load_daemon};
pub use defaults::{HOST, new_app};
pub use host::{Host, host_problems};
pub use problem::{Problem, Severity};
pub use render::render_new;

use crate::model::app::{App, AppName};
use crate::model::colour::Colour;
use document::Document;
use problem::Wrong;

/// The largest app file that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// An app file that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub app: App,
    /// The colour that the first dorc had made active; `None` in dorc's own format, which does not say.
    pub active: Option<Colour>,
    /// What its writer should know although nothing is wrong with it.
    pub notes: Vec<Problem>,
}

/// The app that `text` describes.
///
/// # Errors
/// All the problems of the file, in the order of its lines.
pub fn parse(name: &AppName, text: &str) -> Result<App, Vec<Problem>> {
    read(name, text, None).map(|loaded| loaded.app)
}

/// The app that `text` describes, in either format; relative paths are taken from `base`, and are problems
/// without one.
///
/// # Errors
/// All the problems of the file, in the order of its lines.
pub fn read(name: &AppName, text: &str, base: Option<&Path>) -> Result<Loaded, Vec<Problem>> {
    if text.len() > MAX_FILE {
        return Err(vec![Problem::of_file(Wrong::new(
            format!("it has {} bytes, an app file has at most {MAX_FILE}", text.len()),
            "is this the right file?",
        ))]);
    }
    let document = Document::new(text, base);
    let table = document.parse()?;
    let (app, active) = if seed::is_seed(&table) {
        seed::read(name, &document, &table)
    } else {
        (file::read(name, &document, &table), None)
    };
    document.finish().map(|notes| Loaded { app, active, notes })
}

/// Reads an app file; the app has the file's name without `.toml`.
///
/// # Errors
/// All the problems of the file, each of them with its path.
pub fn load(path: &Path, base: Option<&Path>) -> Result<Loaded, Vec<Problem>> {
    let loaded = name_of(path)
        .and_then(|name| text_of(path).map(|text| (name, text)))
        .map_err(|wrong| vec![Problem::of_file(wrong)])
        .and_then(|(name, text)| read(&name, &text, base));
    match loaded {
        Ok(mut loaded) => {
            loaded.notes.iter_mut().for_each(|note| note.file = Some(path.to_owned()));
            Ok(loaded)
        }
        Err(mut problems) => {
            problems.iter_mut().for_each(|problem| problem.file = Some(path.to_owned()));
            Err(problems)
        }
    }
}

/// The name of the app that an app file of that path describes.
fn name_of(path: &Path) -> Result<AppName, Wrong> {
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(stem) = file_name.strip_suffix(".toml") else {
        return Err(Wrong::new("an app file's name ends in .toml", "rename it to the app's name and .toml"));
    };
    AppName::new(stem).map_err(|why| Wrong::new(why, "the app is called as its file, so rename the file"))
}

/// The text of the file, of which no more than [`MAX_FILE`] is ever taken into memory.
fn text_of(path: &Path) -> Result<String, Wrong> {
    let unreadable = |error: std::io::Error| {
        Wrong::new(format!("it can't be read: {error}"), "an app file is a file that root may read")
    };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Wrong::new("it is not a regular file", "put the app file itself there"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        Wrong::new(format!("line {line} is not UTF-8 text"), "an app file is text in TOML")
    })
}
