//! Whether every file of an upload was signed with a key that its app knows.
//!
//! A file is signed by `FILE.minisig` beside it, or by its line in `SHA256SUMS`, which itself is signed by
//! `SHA256SUMS.minisig`: what `sha256sum` and `minisign` write (<https://jedisct1.github.io/minisign/>).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use sha2::{Digest as _, Sha256};

use super::store::visit;
use super::upload::{TakeError, show};

/// The list of sums.
const SUMS: &str = "SHA256SUMS";
/// What the name of a signature ends in.
const SIGNATURE: &str = "minisig";
/// A signature, or a list of sums, that is longer than this is none.
const LONGEST: u64 = 16 << 20;
/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// Checks the copied upload in `copy`, if there are keys to check it with.
///
/// # Errors
/// `Refused` if a file is not signed by one of the keys.
pub(super) fn check(copy: &Path, keys: &[String]) -> Result<(), TakeError> {
    if keys.is_empty() {
        return Ok(());
    }
    let check = Check {
        copy,
        // The configuration has checked them.
        keys: keys.iter().filter_map(|key| PublicKey::from_base64(key).ok()).collect(),
    };
    let sums = check.sums()?;
    let mut entries = Vec::new();
    let listed = visit(copy, &mut |entry| {
        entries.push((entry.path(), entry.file_type()?));
        Ok(())
    });
    listed.map_err(|error| TakeError::io("could not read the copy of the upload", error))?;
    for (path, kind) in entries {
        let name = path.strip_prefix(copy).unwrap_or(&path);
        if kind.is_symlink() {
            let why = "is a symlink, which no signature covers; upload the file itself";
            return Err(TakeError::refused(format!("{} {why}", show(name))));
        }
        if kind.is_file() && !is_signature(name) && name != Path::new(SUMS) {
            check.file(name, &sums)?;
        }
    }
    Ok(())
}

struct Check<'a> {
    copy: &'a Path,
    keys: Vec<PublicKey>,
}

impl Check<'_> {
    /// The sums that were signed; none where there is no list of them.
    fn sums(&self) -> Result<HashMap<PathBuf, String>, TakeError> {
        let name = Path::new(SUMS);
        if !self.copy.join(name).is_file() {
            return Ok(HashMap::new());
        }
        self.signature(name)?.ok_or_else(|| unsigned(name))?;
        Ok(self.text(name)?.lines().filter_map(sum).collect())
    }

    /// Checks one file.
    fn file(&self, name: &Path, sums: &HashMap<PathBuf, String>) -> Result<(), TakeError> {
        if self.signature(name)?.is_some() {
            return Ok(());
        }
        let wanted = sums.get(name).ok_or_else(|| unsigned(name))?;
        let mut hasher = Sha256::new();
        self.read(name, |chunk| hasher.update(chunk))?;
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == *wanted {
            return Ok(());
        }
        Err(TakeError::refused(format!("{} is not the file that {SUMS} was made of", show(name))))
    }

    /// Checks the signature beside a file; `None`: there is none.
    fn signature(&self, name: &Path) -> Result<Option<()>, TakeError> {
        let beside = name.with_added_extension(SIGNATURE);
        if !self.copy.join(&beside).is_file() {
            return Ok(None);
        }
        let wrong = |why: &str| TakeError::refused(format!("{} {why}", show(&beside)));
        let signature = Signature::decode(&self.text(&beside)?).map_err(|_| wrong("is no signature"))?;
        let key = self.keys.iter().find_map(|key| Some((key, key.verify_stream(&signature).ok()?)));
        let Some((_, mut stream)) = key else {
            return Err(wrong(
                "is not by a key of this app, or of a kind that only old versions of minisign make",
            ));
        };
        self.read(name, |chunk| stream.update(chunk))?;
        stream.finalize().map(Some).map_err(|_| wrong(&format!("is not the signature of {}", show(name))))
    }

    fn text(&self, name: &Path) -> Result<String, TakeError> {
        let path = self.copy.join(name);
        let long = fs::metadata(&path).is_ok_and(|meta| meta.len() > LONGEST);
        match fs::read_to_string(path) {
            Ok(text) if !long => Ok(text),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(failed(name, error)),
            _ => Err(TakeError::refused(format!("{} is no text, or too long", show(name)))),
        }
    }

    fn read(&self, name: &Path, mut take: impl FnMut(&[u8])) -> Result<(), TakeError> {
        let mut file = File::open(self.copy.join(name)).map_err(|error| failed(name, error))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk).map_err(|error| failed(name, error))? {
                0 => return Ok(()),
                count => take(&chunk[..count]),
            }
        }
    }
}

fn failed(name: &Path, error: io::Error) -> TakeError {
    TakeError::io(format!("could not read the copy of {}", show(name)), error)
}

fn unsigned(name: &Path) -> TakeError {
    let name = show(name);
    TakeError::refused(format!(
        "{name} is not signed, and this app takes only what is: add {name}.{SIGNATURE}, or a line for it to {SUMS} and {SUMS}.{SIGNATURE}"
    ))
}

fn is_signature(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == SIGNATURE)
}

/// One line as `sha256sum` writes it: the sum, a blank, a blank or `*`, the path.
fn sum(line: &str) -> Option<(PathBuf, String)> {
    let (sum, path) = line.split_once(' ')?;
    let path = path.strip_prefix([' ', '*'])?;
    let path = path.strip_prefix("./").unwrap_or(path);
    let whole = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| (path.into(), sum.to_ascii_lowercase()))
}
