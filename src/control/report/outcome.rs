//! How a wish ended.

use super::api::{self, exit};
use super::{failure, tally};
use crate::engine::receive::{NotReceived, Uploaded};
use crate::model::app::AppName;
use crate::model::colour::Colour;
use crate::model::deployment::{Live, Outcome};
use crate::model::health::Failure;
use crate::model::release::ReleaseId;
use crate::model::share::Share;

/// The answer to a command that asked for it.
pub fn answer(app: &AppName, outcome: Outcome) -> api::Answer {
    let plain = |exit: u8, message: String| api::Answer {
        exit,
        app: app.to_string(),
        message: format!("{app}: {message}"),
        ..api::Answer::default()
    };
    match outcome {
        Outcome::Done { active, before, tally: counts, already } => {
            let what = if already { "is active already" } else { "is active" };
            api::Answer {
                active: Some(active.colour.to_string()),
                release: Some(active.release.to_string()),
                before: before.map(|live| live.colour.to_string()),
                tally: counts.map(tally),
                ..plain(exit::DONE, format!("{} {} {what}", active.colour, active.release))
            }
        }
        Outcome::Canary { canary, share, active } => api::Answer {
            active: Some(active.colour.to_string()),
            release: Some(active.release.to_string()),
            ..plain(exit::DONE, is_canary(app, canary, share))
        },
        Outcome::Ready(live) => api::Answer {
            release: Some(live.release.to_string()),
            ..plain(exit::DONE, format!("{} {} is ready", live.colour, live.release))
        },
        Outcome::RolledBack { failed, failure, active } => api::Answer {
            before: Some(failed.colour.to_string()),
            ..bad(app, exit::ROLLED_BACK, failed, &failure, active, "it was rolled back")
        },
        Outcome::NotRolledBack { failed, failure, why } => bad(
            app,
            exit::ROLLBACK_FAILED,
            failed,
            &failure,
            failed,
            &format!("it could not be rolled back: {why}"),
        ),
        Outcome::Refused(why) => plain(exit::FAILED, why),
        Outcome::Superseded(why) => plain(exit::SUPERSEDED, why),
        Outcome::Busy(why) => plain(exit::BUSY, why),
        Outcome::NotHealthy { release, colour, failure: why, rollback, active } => {
            let code = if rollback { exit::ROLLBACK_FAILED } else { exit::NOT_HEALTHY };
            api::Answer {
                active: active.map(|live| live.colour.to_string()),
                release: active.map(|live| live.release.to_string()),
                failed_release: release.map(|release| release.to_string()),
                failed_colour: colour.map(|colour| colour.to_string()),
                failure: Some(failure(&why)),
                ..plain(code, not_healthy(release, colour, &why.reason))
            }
        }
    }
}

/// The answer to an upload.
pub fn uploaded(app: &AppName, result: Result<Uploaded, NotReceived>) -> api::Answer {
    let (exit, message, uploaded) = match result {
        Ok(uploaded) => {
            let Uploaded { release, next, .. } = &uploaded;
            (exit::DONE, format!("{release} is uploaded; {next}"), Some(uploaded))
        }
        Err(why @ NotReceived::Busy(_)) => (exit::BUSY, why.to_string(), None),
        Err(why @ NotReceived::Refused(_)) => (exit::FAILED, format!("nothing was uploaded: {why}"), None),
    };
    api::Answer {
        exit,
        app: app.to_string(),
        message: format!("{app}: {message}"),
        release: uploaded.as_ref().map(|uploaded| uploaded.release.to_string()),
        label: uploaded.and_then(|uploaded| uploaded.label).map(|label| label.to_string()),
        ..api::Answer::default()
    }
}

fn is_canary(app: &AppName, canary: Live, share: Share) -> String {
    let Live { colour, release } = canary;
    format!(
        "{colour} {release} gets {share} of the clients; all: dorc switch {app}, none: dorc rollback {app}"
    )
}

/// What is said of a release that failed with traffic on it.
fn bad(app: &AppName, exit: u8, failed: Live, why: &Failure, active: Live, then: &str) -> api::Answer {
    let Live { colour, release } = failed;
    api::Answer {
        exit,
        app: app.to_string(),
        message: format!("{app}: {colour} {release} was active and failed: {}; {then}", why.reason),
        active: Some(active.colour.to_string()),
        release: Some(active.release.to_string()),
        failed_release: Some(release.to_string()),
        failed_colour: Some(colour.to_string()),
        failure: Some(failure(why)),
        ..api::Answer::default()
    }
}

fn not_healthy(release: Option<ReleaseId>, colour: Option<Colour>, reason: &str) -> String {
    match (release, colour) {
        (Some(release), Some(colour)) => format!("{colour} {release} did not get healthy: {reason}"),
        (Some(release), None) => format!("{release} did not get healthy: {reason}"),
        _ => format!("the upload was refused: {reason}"),
    }
}
