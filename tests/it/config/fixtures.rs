//! `tests/fixtures/invalid/NAME.toml` has to give exactly the problems in `NAME.txt` beside it;
//! `UPDATE_FIXTURES=1` writes what it gives.

use std::fs;
use std::path::{Path, PathBuf};

use dorc::config::{self, Loaded, Problem};

/// The fixtures of one kind, in the order of their names.
fn fixtures(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

/// The valid fixture of that name.
pub(super) fn valid(name: &str) -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/valid/{name}.toml"));
    config::load(&path, None).unwrap_or_else(|problems| panic!("{name}: {}", lines(&problems)))
}

/// One problem a line, with the name of the file alone.
fn lines(problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let file = problem.file.as_ref().and_then(|path| path.file_name()).map(PathBuf::from);
        format!("{}\n", Problem { file, ..problem.clone() })
    };
    problems.iter().map(line).collect()
}

#[test]
fn every_invalid_file_says_what_is_wrong_with_it() {
    let files = fixtures("invalid");
    assert!(files.len() >= 60, "only {} fixtures were found", files.len());
    let mut different = Vec::new();
    for path in files {
        let given = match config::load(&path, None) {
            Ok(_) => "nothing is wrong\n".to_owned(),
            Err(problems) => lines(&problems),
        };
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&expected, &given).unwrap();
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        if given != wanted || given == "nothing is wrong\n" {
            different.push(format!("{}:\n  wanted {wanted}  given  {given}", path.display()));
        }
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/invalid");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2 * fixtures("invalid").len(), "a .txt has no .toml");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn no_message_is_longer_than_a_person_reads_or_breaks_the_line() {
    for path in fixtures("invalid") {
        for problem in config::load(&path, None).unwrap_err() {
            let text = problem.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(problem.message.len() + problem.mend.len() < 400, "{text}");
        }
    }
}

#[test]
fn every_valid_file_is_read() {
    for path in fixtures("valid") {
        if let Err(problems) = config::load(&path, None) {
            panic!("{}", lines(&problems));
        }
    }
}
