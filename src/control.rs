//! The control API: HTTP and JSON on a Unix socket.
//!
//! `GET` looks and answers with one JSON document. `POST` changes something and answers with a line of JSON
//! for each [`api::Event`]; the last one is its [`api::Answer`].

pub mod api;
pub mod client;
pub mod metrics;
mod report;
pub mod server;

use crate::engine::Handle;
use crate::model::app::AppName;
use crate::model::colour::Colour;

/// What somebody wants to read of what services wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Of which services.
    pub colours: Vec<Colour>,
    /// How many lines, the last ones.
    pub lines: usize,
    /// What they write from now on as well.
    pub follow: bool,
}

/// What the control server needs of the daemon.
pub trait Apps: Send + Sync + 'static {
    /// The engine of a loaded app.
    fn handle(&self, app: &AppName) -> Option<Handle>;

    /// The engines of all loaded apps, by name.
    fn handles(&self) -> Vec<Handle>;

    /// The users who may deploy an app; nobody if it is not loaded.
    fn deployers(&self, app: &AppName) -> Vec<String>;

    /// Apps whose files could not be taken when the daemon started, and why.
    fn broken(&self) -> Vec<(String, String)>;

    /// How often what happened.
    fn counts(&self) -> &metrics::Counts;

    /// The program that prints what the services of an app wrote.
    fn logs(&self, app: &AppName, query: &LogQuery) -> std::process::Command;

    /// Tells of each change of what is loaded, and of what an app does.
    fn changes(&self) -> tokio::sync::watch::Receiver<()>;

    /// Takes in a new or changed app file: what that led to, or the problems, a line each.
    fn load(&self, app: &AppName, who: &str) -> impl Future<Output = Result<String, String>> + Send;

    /// Takes in a changed app file of a loaded app.
    fn update(&self, app: &AppName, who: &str) -> impl Future<Output = Result<String, String>> + Send;

    /// Stops routing, stops and deletes the services.
    fn remove(
        &self,
        app: &AppName,
        purge: bool,
        who: &str,
    ) -> impl Future<Output = Result<String, String>> + Send;

    /// The plane of an app, and what passes there.
    fn plane(&self, app: &AppName) -> impl Future<Output = api::Plane> + Send;

    /// Whether this host can have the kernel plane, or why not.
    fn kernel_plane(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// The history of an app, loaded or not.
    fn history(&self, app: &AppName) -> crate::state::History;
}
