//! The section `[hooks]`.

use std::time::Duration;

use crate::config::section::Section;
use crate::config::values;
use crate::config::{commands, defaults};
use crate::model::hooks::{Hook, Hooks};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the section.
pub(super) fn read(section: &Section<'_, '_>) -> Hooks {
    section.refuse_unknown();
    let default = defaults::hooks();
    let command = |hook: Hook| Some((hook, section.get(hook.name(), commands::optional_command).flatten()?));
    Hooks {
        commands: Hook::ALL.into_iter().filter_map(command).collect(),
        deadline: section
            .get("deadline", |value| values::duration(value, SHORTEST..=LONGEST))
            .unwrap_or(default.deadline),
    }
}
