//! Paths in an app file.

use std::path::{Component, Path, PathBuf};

use toml::de::DeValue;

use super::problem::Wrong;
use super::values::{shown, text};
use crate::model::app::ReleaseBin;

/// Folders that belong to dorc: an upload there would overwrite what it lives from.
const DORCS_OWN: [&str; 3] = ["/etc/dorc", "/var/lib/dorc", "/run/dorc"];

/// An absolute path; a relative one is taken from `base`.
pub(super) fn absolute(value: &DeValue<'_>, base: Option<&Path>) -> Result<PathBuf, Wrong> {
    let written = text(value)?;
    check_text(&written)?;
    let path = match base {
        Some(base) if !written.starts_with('/') => base.join(&written),
        _ => PathBuf::from(&written),
    };
    if !path.is_absolute() {
        return Err(Wrong::new(
            format!("{} is not a whole path", shown(&written)),
            "write it from the root on, starting with /",
        ));
    }
    let path = without_detours(&path, &written)?;
    if path == Path::new("/") {
        return Err(Wrong::new("this is the root of the whole system", "give it a place of its own"));
    }
    Ok(path)
}

/// Where uploads arrive.
pub(super) fn release_dir(value: &DeValue<'_>, base: Option<&Path>) -> Result<PathBuf, Wrong> {
    let path = absolute(value, base)?;
    for own in DORCS_OWN.map(Path::new) {
        let (relation, clash) = match (path.starts_with(own), own.starts_with(&path)) {
            (true, _) => ("lies in", true),
            (_, true) => ("contains", true),
            _ => ("", false),
        };
        if clash {
            return Err(Wrong::new(
                format!("{} {relation} {}, which is dorc's own", path.display(), own.display()),
                "uploads need a place of their own, for example /srv/upload/web",
            ));
        }
    }
    Ok(path)
}

/// The release binary: inside the release directory, or elsewhere with its whole path.
pub(super) fn release_bin(value: &DeValue<'_>, release_dir: Option<&Path>) -> Result<ReleaseBin, Wrong> {
    let written = text(value)?;
    check_text(&written)?;
    let path = without_detours(Path::new(&written), &written)?;
    if written.ends_with('/') || path.as_os_str().is_empty() || path == Path::new("/") {
        return Err(Wrong::new(
            format!("{} is not the path of a file", shown(&written)),
            "name the program inside release_dir, for example \"web\" or \"bin/web\"",
        ));
    }
    if path.is_relative() {
        return Ok(ReleaseBin::Inside(path));
    }
    Ok(match release_dir.and_then(|dir| path.strip_prefix(dir).ok()) {
        Some(inside) if !inside.as_os_str().is_empty() => ReleaseBin::Inside(inside.to_owned()),
        Some(_) => return Err(Wrong::new("this is release_dir itself", "name the program inside it")),
        None => ReleaseBin::Outside(path),
    })
}

/// The same path without `.`, doubled and trailing slashes; `..` is refused.
fn without_detours(path: &Path, written: &str) -> Result<PathBuf, Wrong> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Wrong::new(format!("{} goes up with '..'", shown(written)), "write the path without it"));
    }
    Ok(path.components().filter(|part| *part != Component::CurDir).collect())
}

fn check_text(written: &str) -> Result<(), Wrong> {
    if written.is_empty() {
        return Err(Wrong::new("the path is empty", "write a path, or leave the key out"));
    }
    if written.len() >= 4096 || written.split('/').any(|part| part.len() > 255) {
        return Err(Wrong::new(format!("{} is too long for a path", shown(written)), "choose a shorter one"));
    }
    if written.ends_with('\\') {
        return Err(Wrong::new(
            format!("{} ends in a backslash", shown(written)),
            "systemd would take the next line with it, so take it out",
        ));
    }
    Ok(())
}
