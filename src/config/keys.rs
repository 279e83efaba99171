//! The keys that an app file can have.

/// The sections of a format, each with its keys; `""` is the top of the file.
#[derive(Debug)]
pub struct Format(&'static [(&'static str, &'static [&'static str])]);

/// dorc's own format.
pub static FORMAT: Format = Format(&[
    (
        "",
        &[
            "listen",
            "plane",
            "release_dir",
            "release_bin",
            "deployers",
            "service",
            "health",
            "hooks",
            "switch",
            "release",
        ],
    ),
    (
        "service",
        &[
            "start",
            "ports",
            "reload",
            "env",
            "env_file",
            "credentials",
            "user",
            "working_dir",
            "memory_max",
            "proxy_protocol",
            "sandbox",
            "notify",
        ],
    ),
    ("service.ports", &["blue", "green"]),
    ("health", &["path", "host", "command", "interval", "timeout", "successes", "deadline"]),
    ("hooks", &["prepare", "verify", "switched", "bake", "failed", "deadline"]),
    ("switch", &["promote", "drain", "bake", "failover", "canary", "hold"]),
    ("release", &["keep", "settle", "signed_by"]),
]);

/// The daemon's own file.
pub static DAEMON: Format = Format(&[("", &["metrics", "events"]), ("events", &["command", "which"])]);

const SEED_SERVICE: &[&str] = &["qualified_name", "working_dir", "port", "on_start", "on_reload", "on_stop"];

/// The first dorc's format.
pub static SEED: Format = Format(&[
    ("", &["app_name", "release_dir", "release_bin", "listen_port", "active_service", "inactive_service"]),
    ("active_service", SEED_SERVICE),
    ("inactive_service", SEED_SERVICE),
]);

/// How alike two keys must be for one to be offered in place of the other.
const ALIKE: f64 = 0.75;

impl Format {
    /// The keys of one section.
    #[must_use]
    pub fn keys(&self, section: &str) -> &'static [&'static str] {
        self.0.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
    }

    /// Every key that holds a value, with its section: `service.ports.blue`.
    pub fn all(&self) -> impl Iterator<Item = String> {
        let is_section = |key: &String| self.0.iter().any(|(name, _)| name == key);
        self.0
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(move |key| full(section, key)))
            .filter(move |key| !is_section(key))
    }

    /// What to do about a key that the section does not have.
    pub(super) fn mend(&self, section: &str, key: &str) -> String {
        if let Some((home, _)) = self.0.iter().find(|(_, keys)| keys.contains(&key)) {
            return match *home {
                "" => format!("{key} belongs above the first [section]"),
                home => format!("{key} belongs to [{home}]"),
            };
        }
        if let Some(near) = nearest(key, self.keys(section)) {
            return format!("did you mean {near}?");
        }
        let of_the_other = std::ptr::eq(self, &SEED) && FORMAT.0.iter().any(|(_, keys)| keys.contains(&key));
        if of_the_other {
            return "this file is in the first dorc's format, so take it out or rewrite the file".to_owned();
        }
        format!("known here are {}", self.keys(section).join(", "))
    }
}

/// The one of `known` that `word` was most likely meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness = |known: &str| strsim::jaro_winkler(&word.to_lowercase(), known);
    known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|known| likeness(known) >= ALIKE)
}

fn full(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}
