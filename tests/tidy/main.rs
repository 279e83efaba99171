//! Tidiness is a test. Each rule is a function of its own, shown beside it to be able to fail.

mod layers;
mod rules;
mod source;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::Source;

#[test]
fn modules_know_only_what_stands_below_them() {
    let sources = sources();
    assert_none(sources.iter().flat_map(|source| in_file(source, layers::wrong_uses(source))));
}

#[test]
fn each_file_keeps_the_rules() {
    let sources = sources();
    assert_none(sources.iter().flat_map(|source| in_file(source, rules::wrongs(source))));
}

#[test]
fn lib_is_the_map() {
    let modules = sources().into_iter().map(|source| source.path);
    let modules = modules.filter(|path| !path.contains('/') && path != "lib" && path != "main").collect();
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("a library has a root");
    assert_none(tree::wrongs_of_the_map(&lib, &modules));
}

#[test]
fn files_are_where_they_belong() {
    let paths = tracked();
    assert_none(tree::mod_files(paths.iter().map(String::as_str)));
    assert_none(tree::unpaired_fixtures(&paths.iter().map(String::as_str).collect()));
}

#[test]
fn no_file_names_the_machine_that_it_was_written_on() {
    // The registry's public name in the lock file is cargo's.
    let paths = tracked().into_iter().filter(|path| path != "Cargo.lock");
    assert_none(paths.flat_map(|path| {
        let bytes = fs::read(root().join(&path)).unwrap_or_default();
        tree::machine_paths(&path, &String::from_utf8_lossy(&bytes))
    }));
}

#[track_caller]
fn assert_none(wrongs: impl IntoIterator<Item = String>) {
    let wrongs: Vec<String> = wrongs.into_iter().collect();
    assert!(wrongs.is_empty(), "{} untidy:\n{}", wrongs.len(), wrongs.join("\n"));
}

fn in_file(source: &Source, wrongs: Vec<String>) -> impl Iterator<Item = String> {
    wrongs.into_iter().map(move |wrong| format!("src/{}.rs {wrong}", source.path))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let files = files_below(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let sources: Vec<Source> = files
        .map(|file| {
            let text = fs::read_to_string(&file).expect("source is text");
            let path = file.strip_prefix(&folder).expect("it was found there");
            Source::new(&path.to_string_lossy(), &text)
        })
        .collect();
    assert!(sources.len() > 20, "the rules must see the source; they see {} files", sources.len());
    sources
}

/// The files that git has or would take; without git, all but what is built.
fn tracked() -> BTreeSet<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let paths: BTreeSet<String> = match listed {
        Some(listed) => String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect(),
        None => files_below(root())
            .iter()
            .filter_map(|path| Some(path.strip_prefix(root()).ok()?.to_string_lossy().into_owned()))
            .collect(),
    };
    assert!(paths.contains("Cargo.toml"), "the rules must see the files of the repository");
    paths.into_iter().filter(|path| root().join(path).is_file()).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository can be read").flatten() {
            let path = entry.path();
            let is_built = path == root().join("target") || path == root().join(".git");
            match path.is_dir() {
                true if !is_built => folders.push(path),
                true => {}
                false => files.push(path),
            }
        }
    }
    files
}
