//! Who may know whom: the drawing in ARCHITECTURE.md as a table.

use crate::source::Source;

/// A module, what it may use beside itself, and why so.
pub struct Layer(pub &'static str, pub &'static [&'static str], pub &'static str);

/// In the order of `lib.rs`: each may use only what stands above it.
pub const LAYERS: &[Layer] = &[
    Layer("model", &[], "it is the pure core, and knows nothing of the world"),
    Layer("accounts", &[], "it reads two files, and several layers need what is in them"),
    Layer("config", &["accounts", "model"], "it makes an App of a file, and no more"),
    Layer("health", &["model"], "what acts on the world knows the model, never its neighbours"),
    Layer("releases", &["model"], "what acts on the world knows the model, never its neighbours"),
    Layer("routing", &["model"], "what acts on the world knows the model, never its neighbours"),
    Layer("services", &["accounts", "model"], "what acts on the world knows the model, never its neighbours"),
    Layer("state", &["model"], "what acts on the world knows the model, never its neighbours"),
    Layer(
        "engine",
        &["model", "health", "releases", "routing", "services", "state"],
        "it carries out what the model decides; it is given its configuration and does not know who asks",
    ),
    Layer(
        "control::api",
        &["model", "state"],
        "it is what both ends of the socket say; a history entry is shown as it was written",
    ),
    Layer(
        "control::client",
        &["control", "control::api", "model"],
        "it knows the daemon by its answers only",
    ),
    Layer(
        "control::report",
        &["control::api", "engine", "model"],
        "it makes answers of what the engine says",
    ),
    Layer(
        "control::server",
        &["accounts", "control", "control::api", "control::report", "engine", "model", "state"],
        "it hands requests to the engine and wires nothing",
    ),
    Layer(
        "control",
        &["control::api", "control::client", "control::server", "engine", "model", "state"],
        "it only holds these, and says what the server needs of the daemon",
    ),
    Layer(
        "daemon",
        &[
            "accounts",
            "model",
            "config",
            "health",
            "releases",
            "routing",
            "services",
            "state",
            "engine",
            "control",
            "control::api",
            "control::server",
        ],
        "it is the only place that wires, and it prints nothing",
    ),
    Layer(
        "cli",
        &["model", "config", "control", "control::api", "control::client", "daemon"],
        "it asks the daemon, or is it; it never reaches around it",
    ),
    Layer(
        "main",
        &["cli", "services::embedded::guard"],
        "it only parses, dispatches and exits; the guard is this program started again as another one",
    ),
];

/// What this file uses against the table.
pub fn wrong_uses(source: &Source) -> Vec<String> {
    let own = source.path.replace('/', "::");
    if own == "lib" {
        return Vec::new();
    }
    let Some(Layer(layer, allowed, reason)) = layer_of(&own) else {
        return vec![format!("is in no layer: give it a line in {}", file!())];
    };
    let mut wrong = Vec::new();
    for name in source.names() {
        let Some(Layer(used, ..)) = layer_of(&name) else { continue };
        let may =
            |path: &&str| is_in(&name, path) && layer_of(path).is_some_and(|Layer(one, ..)| one == used);
        if used != layer && !allowed.iter().any(may) {
            wrong.push(format!("uses {name}, and {layer} must not: {reason}"));
        }
    }
    wrong
}

/// The layer that a path from the root belongs to: the longest one that it starts with.
fn layer_of(path: &str) -> Option<&'static Layer> {
    LAYERS.iter().filter(|layer| is_in(path, layer.0)).max_by_key(|layer| layer.0.len())
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str, text: &str) -> usize {
        wrong_uses(&Source::new(path, text)).len()
    }

    #[test]
    fn a_neighbour_is_a_wrong_use_and_the_model_is_none() {
        assert_eq!(wrong("routing/tcp.rs", "use crate::services::Running;"), 1);
        assert_eq!(wrong("routing/tcp.rs", "use super::super::services::Running;"), 1);
        assert_eq!(wrong("routing/tcp.rs", "use crate::{model::colour::Colour, routing::Target};"), 0);
        assert_eq!(wrong("model/app.rs", "fn f() { crate::health::probe() }"), 1);
        assert_eq!(
            wrong("cli/status.rs", "use crate::{control::{client::Client, server::Server}, engine};"),
            2
        );
        assert_eq!(wrong("control/client.rs", "use super::{api::Answer, server};"), 1);
        assert_eq!(wrong("main.rs", "fn main() { dorc::daemon::run(); dorc::cli::run() }"), 1);
        assert_eq!(wrong("main.rs", "use dorc::services::embedded::{guard::run, supervise::Supervisor};"), 1);
    }

    #[test]
    fn a_module_without_a_layer_is_seen() {
        assert_eq!(wrong("helpers.rs", ""), 1);
    }

    #[test]
    fn the_table_has_no_upward_edge() {
        for (at, Layer(layer, allowed, _)) in LAYERS.iter().enumerate() {
            let above = |name: &str| LAYERS[..at].iter().any(|Layer(other, ..)| *other == name);
            // `control` is the file that lists the other three, and they may use what it says for all.
            let layer_above = |name: &&str| layer_of(name).is_some_and(|Layer(layer, ..)| above(layer));
            let unknown: Vec<_> =
                allowed.iter().filter(|name| !layer_above(name) && **name != "control").collect();
            assert!(unknown.is_empty(), "{layer} may use {unknown:?}, which does not stand above it");
        }
    }
}
