//! What the files of the repository have to keep to together.

use std::collections::BTreeSet;

use crate::layers::{LAYERS, Layer};

/// Files called `mod.rs`.
pub fn mod_files<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wrong = paths.filter(|path| path.rsplit('/').next() == Some("mod.rs"));
    wrong.map(|path| format!("{path}: a module is `name.rs` and the folder `name/`")).collect()
}

/// What is wrong with `lib.rs` as the map of the modules in `src/`.
pub fn wrongs_of_the_map(lib: &str, modules: &BTreeSet<String>) -> Vec<String> {
    let listed: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut wrongs = Vec::new();
    for module in modules.iter().filter(|module| !listed.contains(&module.as_str())) {
        wrongs.push(format!("src/lib.rs does not list {module}"));
    }
    for (at, module) in listed.iter().enumerate() {
        let uses = LAYERS.iter().filter(|Layer(layer, ..)| layer.split("::").next() == Some(module));
        for used in uses.flat_map(|Layer(_, uses, _)| *uses) {
            if listed[at + 1..].contains(used) {
                wrongs.push(format!("src/lib.rs lists {module} above {used}, which it uses"));
            }
        }
    }
    wrongs
}

/// App files that must be refused without the answer that they must get, and answers without a file.
pub fn unpaired_fixtures(paths: &BTreeSet<&str>) -> Vec<String> {
    let fixtures = paths.iter().filter(|path| path.starts_with("tests/fixtures/invalid/"));
    let unpaired = fixtures.filter_map(|path| {
        let (stem, ending) = path.rsplit_once('.')?;
        let partner = format!("{stem}.{}", if ending == "toml" { "txt" } else { "toml" });
        (!paths.contains(partner.as_str())).then(|| format!("{path} is there without {partner}"))
    });
    unpaired.collect()
}

/// Paths of one machine in a file, by line.
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    // In two pieces each, so that this file does not find itself.
    const PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("crates", ".io-")];
    let is_machine_path = |line: &str, wanted: &str| {
        let mut found = line.match_indices(wanted);
        found.any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '}'))
    };
    // In a test host, root's home is a place like any other.
    let allowed = if path.starts_with("tests/host/") { PATHS[1] } else { "" };
    let mut wrongs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for wanted in PATHS.into_iter().filter(|wanted| *wanted != allowed && is_machine_path(line, wanted)) {
            wrongs.push(format!("{path}:{}: `{wanted}` is a path of one machine", number + 1));
        }
    }
    wrongs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mod_file_is_seen() {
        assert_eq!(mod_files(["src/routing/mod.rs", "src/routing.rs", "src/amod.rs"].into_iter()).len(), 1);
    }

    #[test]
    fn the_map_is_whole_and_in_order() {
        let modules = BTreeSet::from(["model".to_owned(), "engine".to_owned(), "cli".to_owned()]);
        let wrongs = |lib| wrongs_of_the_map(lib, &modules).len();
        assert_eq!(wrongs("pub mod model;\npub mod engine;\npub mod cli;"), 0);
        assert_eq!(wrongs("pub mod model;\npub mod cli;"), 1);
        assert_eq!(wrongs("pub mod engine;\npub mod model;\npub mod cli;"), 1);
    }

    #[test]
    fn a_fixture_without_its_answer_is_seen() {
        let wrongs = |paths: &[&'static str]| unpaired_fixtures(&paths.iter().copied().collect()).len();
        assert_eq!(wrongs(&["tests/fixtures/invalid/a.toml", "tests/fixtures/invalid/a.txt"]), 0);
        assert_eq!(wrongs(&["tests/fixtures/invalid/a.toml", "tests/fixtures/invalid/b.txt"]), 2);
        assert_eq!(wrongs(&["tests/fixtures/valid/a.toml"]), 0);
    }

    #[test]
    fn a_path_of_one_machine_is_seen() {
        let wrongs = |text: String| machine_paths("a", &text).len();
        assert_eq!(
            wrongs(format!("see {}wt/x\nor ~{}.cargo", concat!("/wo", "rk/"), concat!("/ro", "ot/"))),
            2
        );
        assert_eq!(wrongs(format!("./target{}x", concat!("/wo", "rk/"))), 0);
    }
}
