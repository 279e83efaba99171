//! The JSON schemas of what `--json` prints, made of the very types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

use super::demo::Demo;
use super::{Answer, Event, Happened, HostAnswers, ReleaseStatus, Status, to_pretty_json};

/// The kinds of documents: what prints them is in the documentation.
pub const SUBJECTS: [&str; 7] = ["status", "event", "answer", "hosts", "releases", "history", "demo"];

/// The JSON schema (draft 2020-12) of one of [`SUBJECTS`].
#[must_use]
pub fn schema(subject: &str) -> Option<String> {
    Some(match subject {
        "status" => text::<Status>(),
        "event" => text::<Event>(),
        "answer" => text::<Answer>(),
        "hosts" => text::<HostAnswers>(),
        "releases" => text::<Vec<ReleaseStatus>>(),
        "history" => text::<Happened>(),
        "demo" => text::<Demo>(),
        _ => return None,
    })
}

fn text<T: JsonSchema>() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    to_pretty_json(&settings.into_generator().into_root_schema_for::<T>())
}
