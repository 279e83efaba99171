//! What one app takes from another.

use std::net::SocketAddr;

use super::checks::{overlap, service_address};
use super::problem::{Problem, Wrong};
use crate::model::app::App;
use crate::model::colour::Colour;

/// A place that an app takes for itself.
struct Claim {
    /// The key that claims it.
    key: &'static str,
    /// What it is, for people: `the service blue-web`.
    what: String,
    address: SocketAddr,
}

/// The addresses and ports of `app` that one of `others` has as well. An app of the same name is no conflict:
/// it is what `app` is about to replace.
#[must_use]
pub fn conflicts(app: &App, others: &[App]) -> Vec<Problem> {
    let mine = claims(app);
    let mut problems = Vec::new();
    for other in others.iter().filter(|other| other.name != app.name) {
        for theirs in claims(other) {
            for claim in mine.iter().filter(|claim| overlap(claim.address, theirs.address)) {
                problems.push(problem(claim, &theirs));
            }
        }
        if let Some(problem) = shared_folder(app, other) {
            problems.push(problem);
        }
    }
    problems
}

fn claims(app: &App) -> Vec<Claim> {
    let listen = app.listen.iter().map(|address| Claim {
        key: "listen",
        what: format!("the app {}", app.name),
        address: *address,
    });
    let services = app.service.ports.into_iter().flat_map(|ports| {
        Colour::BOTH.map(|colour| Claim {
            key: "service.ports",
            what: format!("the service {}", app.name.service(colour)),
            address: service_address(ports[colour]),
        })
    });
    listen.chain(services).collect()
}

fn problem(mine: &Claim, theirs: &Claim) -> Problem {
    let message = if mine.address == theirs.address {
        format!("{} is taken by {}", mine.address, theirs.what)
    } else {
        format!("{} takes the same connections as {} of {}", mine.address, theirs.address, theirs.what)
    };
    Problem::of_key(mine.key, Wrong::new(message, "choose another port, or an address that no other app has"))
}

/// Two apps that watch one folder would both take every upload in it.
fn shared_folder(app: &App, other: &App) -> Option<Problem> {
    let (mine, theirs) = (&app.release_dir, &other.release_dir);
    if !(mine.starts_with(theirs) || theirs.starts_with(mine)) {
        return None;
    }
    let message = if mine == theirs {
        format!("{} is also where the app {} gets its uploads", mine.display(), other.name)
    } else {
        format!(
            "{} and {} of the app {} are one inside the other",
            mine.display(),
            theirs.display(),
            other.name
        )
    };
    let wrong = Wrong::new(message, "an upload is for one app, so give each a folder of its own");
    // The same artifact may be meant to run as two apps, so only its folder's sharing is told.
    Some(Problem::of_key("release_dir", wrong).into_warning())
}
