//! Uploads of apps that take only what is signed. The files in `tests/fixtures/signed` were signed by `minisign` itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Place;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signed").join(name)
}

/// An upload of these files that has to be signed with the key of the fixtures.
fn upload(names: &[&str]) -> Place {
    let mut place = Place::empty();
    let key = fs::read_to_string(fixture("key.pub")).unwrap();
    place.upload.signed_by = vec![key.lines().nth(1).unwrap().to_owned()];
    for name in names {
        let mode = if *name == "web" { 0o755 } else { 0o644 };
        place.write(name, &fs::read_to_string(fixture(name)).unwrap(), mode);
    }
    place
}

const LISTED: [&str; 4] = ["web", "assets/a.txt", "SHA256SUMS", "SHA256SUMS.minisig"];

#[test]
fn a_signature_beside_a_file_or_in_the_list_will_do() {
    upload(&["web", "web.minisig"]).take().unwrap();
    upload(&LISTED).take().unwrap();
    upload(&["web", "web.minisig", "SHA256SUMS", "SHA256SUMS.minisig", "assets/a.txt"]).take().unwrap();
}

#[test]
fn what_is_not_signed_is_refused() {
    for (names, reason) in [
        (&["web"][..], "web is not signed"),
        (&["web", "SHA256SUMS"], "SHA256SUMS is not signed"),
        (&["web", "web.minisig", "assets/a.txt"], "assets/a.txt is not signed"),
    ] {
        let refused = upload(names).refused();
        assert!(refused.contains(reason), "{refused}");
    }
    let place = upload(&LISTED);
    symlink("web", place.at("link")).unwrap();
    assert!(place.refused().contains("link is a symlink"));
}

#[test]
fn what_was_changed_is_refused() {
    for (name, content, reason) in [
        ("web", "#!/bin/sh\necho other\n", "web is not the file that SHA256SUMS was made of"),
        ("SHA256SUMS", "", "SHA256SUMS.minisig is not the signature of SHA256SUMS"),
        ("SHA256SUMS.minisig", "nonsense", "SHA256SUMS.minisig is no signature"),
    ] {
        let place = upload(&LISTED);
        place.write(name, content, 0o755);
        let refused = place.refused();
        assert!(refused.contains(reason), "{refused}");
    }
    let place = upload(&["web", "web.minisig"]);
    fs::copy(fixture("SHA256SUMS.minisig"), place.at("web.minisig")).unwrap();
    assert!(place.refused().contains("web.minisig is not the signature of web"));
}

#[test]
fn the_key_of_somebody_else_is_none() {
    let mut place = upload(&LISTED);
    place.upload.signed_by = vec!["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".into()];
    assert!(place.refused().contains("not by a key of this app"));
    let own = upload(&[]).upload.signed_by;
    place.upload.signed_by.extend(own);
    place.take().unwrap();
}
