//! Whether a script's interpreter is there.

use std::path::Path;

use super::{Flaw, runs_here};

/// Where services look for programs, as systemd has it.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Finds what is wrong with a script whose file goes on after its `#!` with `head`.
pub(super) fn flaw(head: &[u8]) -> Option<Flaw> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return Some(Flaw::Never("starts with a #! line that is not UTF-8".into()));
    };
    if line.ends_with('\r') {
        return Some(Flaw::Never("has Windows line ends (CR LF), which its #! line can't have".into()));
    }
    let mut words = line.split_ascii_whitespace();
    let Some(interpreter) = words.next() else {
        return Some(Flaw::Never("starts with #! but names no interpreter".into()));
    };
    let path = Path::new(interpreter);
    if !path.is_absolute() {
        return Some(Flaw::Never(format!(
            "names {interpreter:?} as its interpreter, which is no absolute path"
        )));
    }
    if !runs_here(path) {
        return Some(Flaw::Never(format!("needs {interpreter}, which this host does not have")));
    }
    if path.file_name().is_some_and(|name| name == "env") {
        return named_by_env(words);
    }
    None
}

/// The same for the program that `env` is to find.
fn named_by_env<'a>(words: impl Iterator<Item = &'a str>) -> Option<Flaw> {
    let mut words = words.skip_while(|word| word.starts_with('-') || word.contains('='));
    let Some(program) = words.next() else {
        return Some(Flaw::Never("starts with #! and env, but names no program".into()));
    };
    // An absolute path replaces the folder that it is joined to.
    let found = PATH.iter().any(|folder| runs_here(&Path::new(folder).join(program)));
    (!found).then(|| {
        let path = PATH.join(":");
        Flaw::Never(format!("needs {program}, which is not in this host's standard PATH ({path})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_looked_for() {
        assert_eq!(flaw(b"/bin/sh -eu\nexit\n"), None);
        assert_eq!(flaw(b" /usr/bin/env sh"), None);
        assert_eq!(flaw(b"/usr/bin/env -S A=b sh -eu\n"), None);
        let why = |head: &[u8]| match flaw(head) {
            Some(Flaw::Never(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(b"/bin/nope\n"), "needs /bin/nope, which this host does not have");
        assert!(why(b"/usr/bin/env nope-nope\n").starts_with("needs nope-nope, which is not in"));
        assert!(why(b"/usr/bin/env\n").contains("no program"));
        assert!(why(b"bin/sh\n").contains("absolute"));
        assert!(why(b"\n").contains("no interpreter"));
        assert!(why(b"/bin/sh\r\n").contains("CR LF"));
    }
}
