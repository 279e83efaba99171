//! Values of unit files: what can't be written safely is refused, the rest is quoted.

use std::path::Path;

/// A `Service` can't be written as a unit file that means the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// systemd would read a line break or another control character as the end of the value.
    #[error("{what} has a control character ({text:?}); a unit file can't hold that")]
    Control {
        /// What it is.
        what: String,
        /// As it was given.
        text: String,
    },
    /// A backslash at the end of a line joins the next line to it.
    #[error("{what} ends in a backslash ({text:?}); systemd would join the next line to it")]
    TrailingBackslash {
        /// What it is.
        what: String,
        /// As it was given.
        text: String,
    },
    /// systemd gives the first character a meaning of its own.
    #[error(
        "{what} starts with {prefix:?} ({text:?}), which would change how systemd runs it; name the program itself"
    )]
    Prefix {
        /// What it is.
        what: String,
        /// The character.
        prefix: char,
        /// As it was given.
        text: String,
    },
    /// It is something else than it should be.
    #[error("{what} can't be {text:?}: {wanted}")]
    Malformed {
        /// What it is.
        what: String,
        /// As it was given.
        text: String,
        /// What it should be.
        wanted: &'static str,
    },
}

impl UnitError {
    pub(super) fn malformed(what: &str, text: &str, wanted: &'static str) -> Self {
        Self::Malformed { what: what.into(), text: text.into(), wanted }
    }
}

/// A line of a unit file longer than 1 MiB is an error to systemd, and one word longer than 128 KiB to the kernel.
const MAX_WORD: usize = 120_000;
const MAX_COMMAND: usize = 500_000;

/// Characters that systemd takes for an instruction at the start of a command.
const PREFIXES: [char; 5] = ['@', '-', ':', '+', '!'];

/// Whether systemd drops a line because of this character: it takes Unicode's noncharacters for invalid UTF-8.
pub(super) fn breaks_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

fn without_control<'a>(what: &str, text: &'a str) -> Result<&'a str, UnitError> {
    if text.chars().any(breaks_a_line) {
        return Err(UnitError::Control { what: what.into(), text: text.into() });
    }
    Ok(text)
}

/// A command line whose every word arrives exactly as it is given.
pub(super) fn command(what: &str, words: &[String]) -> Result<String, UnitError> {
    let [program, arguments @ ..] = words else {
        return Err(UnitError::malformed(what, "", "it needs a program"));
    };
    let mut line = self::program(what, program)?;
    for word in arguments {
        if word.len() > MAX_WORD {
            return Err(UnitError::malformed(what, &head(word), "one of its words is too long"));
        }
        line.push(' ');
        line += &quoted(&without_control(what, word)?.replace('$', "$$"));
    }
    if line.len() > MAX_COMMAND {
        return Err(UnitError::malformed(what, program, "it is too long"));
    }
    Ok(line)
}

/// The beginning of a text that is too long to show.
pub(super) fn head(text: &str) -> String {
    text.chars().take(40).collect()
}

fn program(what: &str, program: &str) -> Result<String, UnitError> {
    without_control(what, program)?;
    if let Some(prefix) = program.chars().next().filter(|first| PREFIXES.contains(first)) {
        return Err(UnitError::Prefix { what: what.into(), prefix, text: program.into() });
    }
    let plain = !program.contains('/') && !program.is_empty() && !program.starts_with('.');
    // systemd refuses quotes and backslashes here however they are written, and expands `$` in the name but not in the path.
    if program.contains(['$', '"', '\'', '\\']) || !(plain || is_normal(program)) {
        let wanted =
            "a program is an absolute path without '.', '..', '$', quotes and backslashes, or a plain name";
        return Err(UnitError::malformed(what, program, wanted));
    }
    Ok(quoted(program))
}

fn is_normal(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// A word in double quotes, as `extract_first_word` of systemd undoes them, specifiers included.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn absolute<'a>(what: &str, path: &'a Path) -> Result<&'a str, UnitError> {
    let shown = path.display().to_string();
    let text = path.to_str().ok_or_else(|| UnitError::malformed(what, &shown, "it has to be UTF-8"))?;
    without_control(what, text)?;
    if text != "/" && !is_normal(text) {
        return Err(UnitError::malformed(
            what,
            text,
            "it has to be an absolute path without '.', '..' and '//'",
        ));
    }
    if text.ends_with('\\') {
        return Err(UnitError::TrailingBackslash { what: what.into(), text: text.into() });
    }
    if text.ends_with(char::is_whitespace) {
        return Err(UnitError::malformed(what, text, "systemd drops white space at the end"));
    }
    Ok(text)
}

/// A path where systemd takes the whole rest of the line, without quotes.
pub(super) fn path(what: &str, path: &Path) -> Result<String, UnitError> {
    Ok(absolute(what, path)?.replace('%', "%%"))
}

/// As `path`, for keys that expand wildcards.
pub(super) fn glob_free(what: &str, path: &Path) -> Result<String, UnitError> {
    let text = absolute(what, path)?;
    if text.contains(['*', '?', '[', '{', '\\']) {
        return Err(UnitError::malformed(what, text, "systemd would take it for a pattern"));
    }
    Ok(text.replace('%', "%%"))
}

/// A path in a list of paths, with `suffix` as its option.
pub(super) fn quoted_path(what: &str, path: &Path, suffix: &str) -> Result<String, UnitError> {
    let text = absolute(what, path)?;
    if text.contains([':', '\\', '"']) {
        return Err(UnitError::malformed(what, text, "it must not have ':', '\\' or '\"'"));
    }
    Ok(quoted(&format!("{text}{suffix}")))
}

/// A user's name or number.
pub(super) fn user_name(name: &str) -> Result<&str, UnitError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 32 || name.starts_with(['-', '.']) || !name.chars().all(valid) {
        return Err(UnitError::malformed(
            "the user",
            name,
            "a user's name has only letters, digits, '_', '-' and '.'",
        ));
    }
    Ok(name)
}

/// A credential: its name, and the file that it is in.
pub(super) fn credential(name: &str, file: &Path) -> Result<String, UnitError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.chars().all(valid) {
        let wanted = "its name has only letters, digits, '_', '-' and '.', and does not start with a dot";
        return Err(UnitError::malformed("a credential", name, wanted));
    }
    Ok(format!("{name}:{}", path("a credential", file)?))
}

/// An amount of memory.
pub(super) fn memory(limit: &str) -> Result<&str, UnitError> {
    let digits = limit.strip_suffix(['K', 'M', 'G', 'T', '%']).unwrap_or(limit);
    let number = !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !number && limit != "infinity" {
        return Err(UnitError::malformed(
            "memory_max",
            limit,
            "it has to look like 512M, 2G, 50% or infinity",
        ));
    }
    Ok(limit)
}
