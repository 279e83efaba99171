//! What is said of an upload by a command: `/v1/apps/{app}/uploads/{digest}`.
//!
//! The digest is that of the stream's bytes, BLAKE3 in hex. `GET` tells how many of them are there already; the body of a `POST`
//! is the rest of them.

use serde::{Deserialize, Serialize};

/// The header that says at which byte the body begins.
pub const OFFSET: &str = "dorc-offset";

/// The header that says what the user calls the release; UTF-8.
pub const LABEL: &str = "dorc-label";

/// The header that says that the release is to be stored and no more, until somebody asks for it.
pub const ONLY_STORE: &str = "dorc-only-store";

/// How an upload is to be taken.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// What the user calls the release.
    pub label: Option<String>,
    /// It does not come up by itself.
    pub only_store: bool,
}

/// The answer to `GET /v1/apps/{app}/uploads/{digest}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// How many bytes of it are there.
    pub received: u64,
}

/// Where the upload with that digest is.
#[must_use]
pub fn path(app: &str, digest: impl std::fmt::Display) -> String {
    format!("/v1/apps/{app}/uploads/{digest}")
}
