//! What each file of `src/` has to keep to.

use crate::source::Source;

/// Words that only some modules may say, and why.
const CONFINED: &[(&[&str], &[&str], &str)] = &[
    (
        &["serde"],
        &["config/file", "config/seed", "state", "control/api"],
        "what is read and written has types of its own, and the rest of the program never holds them",
    ),
    (
        &["unsafe"],
        &["releases/lease", "routing/kernel/bpf"],
        "two files talk to the kernel where no safe call does",
    ),
    (
        &["println", "eprintln", "print", "eprint", "dbg"],
        &["cli"],
        "only the command line prints; elsewhere it is `tracing`",
    ),
    (&["anyhow"], &["cli", "daemon", "main"], "below the top each module has an error type of its own"),
    (&["clap"], &["cli", "main"], "only the command line knows the command line"),
];

/// What the pure core must not touch.
const IMPURE: &[&str] = &[
    "std::io",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "Instant::now",
    "SystemTime::now",
    "tokio",
    "rustix",
    "libc",
    "serde",
    "serde_json",
    "tracing",
    "async",
    "await",
];

/// A file of more lines of code has become two things.
const MOST_LINES: usize = 400;

/// Files that may be longer, up to [`HARD_LIMIT`], and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// No file is ever longer.
const HARD_LIMIT: usize = 500;

/// All that is wrong with a file by itself.
pub fn wrongs(source: &Source) -> Vec<String> {
    let mut wrongs = confined_words(source);
    wrongs.extend(impurities(source));
    wrongs.extend(too_long(source));
    if !source.text.starts_with("//!") && !source.path.ends_with("/tests") {
        wrongs.push("does not start by saying what it is for (`//! …`)".to_owned());
    }
    if source.hides_something_in_tests {
        wrongs.push(
            "has `#[cfg(test)]` before something other than `mod tests`: fakes live in tests/support"
                .to_owned(),
        );
    }
    wrongs
}

fn confined_words(source: &Source) -> Vec<String> {
    let mut wrongs = Vec::new();
    for (words, places, reason) in CONFINED {
        let is_outside = !places.iter().any(|place| source.is_in(place));
        for word in words.iter().filter(|word| is_outside && source.says(word)) {
            wrongs.push(format!("says `{word}`, which only {} may: {reason}", places.join(", ")));
        }
    }
    wrongs
}

fn impurities(source: &Source) -> Vec<String> {
    let words = IMPURE.iter().filter(|word| source.is_in("model") && source.says(word));
    words.map(|word| format!("says `{word}`: the model has no input, output, clock or runtime")).collect()
}

fn too_long(source: &Source) -> Option<String> {
    let lines = source.lines_of_code();
    let is_excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    let most = if is_excused { HARD_LIMIT } else { MOST_LINES };
    (lines > most).then(|| format!("has {lines} lines of code, more than {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        wrongs(&Source::new(path, &format!("//! For a test.\n{text}"))).len()
    }

    #[test]
    fn serde_stays_where_bytes_are() {
        assert_eq!(count("engine.rs", "use serde::Serialize;"), 1);
        assert_eq!(count("control/server.rs", "#[derive(serde::Serialize)] struct A;"), 1);
        assert_eq!(count("statement.rs", "use serde::Serialize;"), 1);
        assert_eq!(count("state/record.rs", "use serde::Serialize;"), 0);
        assert_eq!(count("control/api.rs", "use serde::Serialize;"), 0);
    }

    #[test]
    fn unsafe_print_anyhow_and_clap_stay_where_they_may_be() {
        assert_eq!(count("routing/tcp.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(count("routing/kernel/bpf.rs", "fn f() { unsafe { g() } }"), 0);
        assert_eq!(count("daemon.rs", "fn f() { println!(\"\"); eprint!(\"\"); }"), 2);
        assert_eq!(count("cli/status.rs", "fn f() { println!(\"\"); }"), 0);
        assert_eq!(count("releases/store.rs", "fn f() -> anyhow::Result<()> {}"), 1);
        assert_eq!(count("control/client.rs", "use clap::Parser;"), 1);
    }

    #[test]
    fn the_model_is_pure() {
        for text in
            ["use std::io;", "fn f() { Instant::now() }", "async fn f() {}", "use tokio::time::Instant;"]
        {
            assert_eq!(count("model/deployment.rs", text), 1, "{text}");
            assert_eq!(count("engine.rs", text), 0, "{text}");
        }
        assert_eq!(count("model/app.rs", "use std::net::SocketAddr; use std::time::Instant;"), 0);
    }

    #[test]
    fn a_file_has_an_end() {
        assert_eq!(count("engine.rs", &"a();\n".repeat(MOST_LINES)), 0);
        assert_eq!(count("engine.rs", &"a();\n".repeat(MOST_LINES + 1)), 1);
        assert_eq!(count("engine.rs", &"// a\n\n".repeat(MOST_LINES + 1)), 0);
    }

    #[test]
    fn a_file_says_what_it_is_for_and_hides_nothing() {
        assert_eq!(wrongs(&Source::new("engine.rs", "fn f() {}")).len(), 1);
        assert_eq!(count("engine.rs", "#[cfg(test)]\nuse crate::fake::Fake;\nfn f() {}"), 1);
    }

    #[test]
    fn no_excuse_outlives_its_reason() {
        for (path, reason) in LONG_FILES {
            assert!(!reason.is_empty(), "{path} needs a reason");
        }
    }
}
