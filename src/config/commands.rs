//! Commands in an app file: words, of which no shell ever sees anything.

use toml::de::DeValue;

use super::keys::nearest;
use super::problem::Wrong;
use super::values::{shown, text};

/// What stands for something that is known only when a service starts.
const PLACEHOLDERS: [&str; 3] = ["bin", "port", "colour"];

/// Signs before a program that give it rights, or take checks away, when systemd reads them.
const EXEC_PREFIXES: [char; 6] = ['@', '-', ':', '+', '!', '|'];

/// A command as its words.
pub(super) fn command(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let words = words(&text(value)?)?;
    check_program(&words[0])?;
    Ok(words)
}

/// As [`command`], of which an empty one means the default.
pub(super) fn optional_command(value: &DeValue<'_>) -> Result<Option<Vec<String>>, Wrong> {
    if text(value)?.trim().is_empty() { Ok(None) } else { command(value).map(Some) }
}

/// The words of a command, at least one, with nothing but known placeholders in them.
pub(super) fn words(written: &str) -> Result<Vec<String>, Wrong> {
    let words = shell_words::split(written)
        .map_err(|_| Wrong::new(format!("a quote in {} is not closed", shown(written)), "close it"))?;
    if words.is_empty() {
        return Err(Wrong::new("the command is empty", "write a program, or leave the key out"));
    }
    for word in &words {
        if word.ends_with('\\') {
            let mend = "systemd would take the next line with it, so take it out";
            return Err(Wrong::new(format!("{} ends in a backslash", shown(word)), mend));
        }
        if word.chars().any(char::is_control) {
            return Err(Wrong::new(format!("{} has a control character", shown(word)), "take it out"));
        }
        // In a script for `sh -c` it stands among other words, and there it is right.
        if word.contains("$PORT") && !word.contains(char::is_whitespace) {
            return Err(Wrong::new("no shell fills in $PORT here", "write {port}"));
        }
        if let Some(unknown) = placeholders(word).find(|name| !PLACEHOLDERS.contains(name)) {
            let near = nearest(unknown, &PLACEHOLDERS);
            let mend = near.map_or_else(
                || "known are {bin}, {port} and {colour}".to_owned(),
                |near| format!("did you mean {{{near}}}?"),
            );
            return Err(Wrong::new(format!("there is no placeholder {{{unknown}}}"), mend));
        }
    }
    Ok(words)
}

/// The program has to be one that needs no search and is no order to systemd.
pub(super) fn check_program(program: &str) -> Result<(), Wrong> {
    if program.starts_with(EXEC_PREFIXES) {
        return Err(Wrong::new(
            format!("{} starts with a sign that means something to systemd", shown(program)),
            "write the program without it",
        ));
    }
    if program == "{bin}" || (program.starts_with('/') && !program.ends_with('/')) {
        return Ok(());
    }
    Err(Wrong::new(
        format!("{} is not a whole path", shown(program)),
        "write {bin} for the release binary, or the program's whole path, as `command -v` prints it",
    ))
}

/// The names in braces; braces around anything but `[a-z_]+` are text, so that JSON passes.
fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_name.then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_braces_are_placeholders() {
        let names = |word| placeholders(word).collect::<Vec<_>>();
        assert_eq!(names("{bin}--{port}x{colour}"), ["bin", "port", "colour"]);
        assert_eq!(names("{{nested}"), ["nested"]);
        assert!(names(r#"{"a":1} {} {A} {0} {a b} {open"#).is_empty());
    }
}
