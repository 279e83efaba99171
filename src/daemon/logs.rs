//! What the services of an app wrote, and its hooks: from the journal, or from the files of `dorc up`.

use std::process::Command;

use super::{Places, local, system};
use crate::control::LogQuery;
use crate::model::app::AppName;

/// The program that prints it.
pub(super) fn command(places: &Places, app: &AppName, query: &LogQuery) -> Command {
    let colours = query.colours.iter().copied();
    let mut command = if places.base.is_some() {
        let mut tail = Command::new("tail");
        tail.arg(if query.follow { "-F" } else { "-q" });
        tail.args(colours.flat_map(|colour| local::log_files(places, app, colour)));
        tail
    } else {
        let mut journal = Command::new("journalctl");
        journal.arg("--no-pager");
        let units = colours.flat_map(|colour| system::units(app, colour));
        journal.args(units.flat_map(|unit| ["-u".to_owned(), unit]));
        if query.follow {
            journal.arg("-f");
        }
        journal
    };
    command.arg("-n").arg(query.lines.to_string());
    command
}
