//! The reference tells every key that is read, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dorc::config;
use dorc::config::keys::FORMAT;
use dorc::model::app::AppName;

fn reference() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/app-file.md")).unwrap()
}

/// The keys that have a heading of their own: "### `service.start`".
fn headings(text: &str) -> Vec<String> {
    let key = |line: &str| Some(line.strip_prefix("### `")?.strip_suffix('`')?.to_owned());
    text.lines().filter_map(key).collect()
}

#[test]
fn every_key_is_documented_and_no_other() {
    let documented: Vec<String> = headings(&reference());
    let known: BTreeSet<String> = FORMAT.all().collect();
    assert!(known.len() > 20, "{known:?}");
    assert_eq!(documented.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(documented.len(), known.len(), "a key is documented twice");
}

#[test]
fn every_key_has_a_type_and_a_default() {
    let text = reference();
    assert!(headings(&text).len() > 20);
    for section in text.split("\n### `").skip(1) {
        let key = section.split('`').next().unwrap();
        for line in ["Type: ", "Default: "] {
            assert!(section.lines().any(|text| text.starts_with(line)), "{key} has no line {line:?}");
        }
    }
}

#[test]
fn the_examples_are_right() {
    let text = reference();
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 5, "{}", examples.len());
    let name = AppName::new("web").unwrap();
    for example in examples {
        let whole = if example.contains("release_dir =") {
            example.to_owned()
        } else if example.starts_with('[') {
            format!("listen = 80\nrelease_dir = \"/srv/upload/web\"\nrelease_bin = \"web\"\n{example}")
        } else {
            format!("release_dir = \"/srv/upload/web\"\nrelease_bin = \"web\"\n{example}")
        };
        let read = config::parse(&name, &whole);
        assert!(read.is_ok(), "{example}\n{read:?}");
    }
}

#[test]
fn the_rewritten_file_means_the_same_as_the_first_dorcs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/moving-from-the-first-dorc.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = text.split("```\n").collect();
    let [_, old, _, new, _] = blocks.as_slice() else { panic!("{} parts", blocks.len()) };
    let name = AppName::new("web").unwrap();
    assert_eq!(config::parse(&name, old), config::parse(&name, new));
    assert!(config::parse(&name, old).is_ok());
}
