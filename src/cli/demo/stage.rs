//! Where the story is played: the commands, the traffic, and what was promised of both.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::ensure;

use super::client::Client;
use super::traffic::Traffic;
use crate::cli::say::{self, Style};
use crate::cli::{Context, typed};
use crate::control::api;
use crate::control::api::demo::{Requests, Step};

/// The stage.
pub(super) struct Stage {
    context: Context,
    traffic: Option<Traffic>,
    /// What became of the requests, as far as it is known.
    pub(super) requests: Requests,
    /// What was done.
    pub(super) steps: Vec<Step>,
}

impl Stage {
    /// A stage for the daemon of that context.
    pub(super) fn new(context: Context) -> Self {
        Self { context, traffic: None, requests: Requests::default(), steps: Vec::new() }
    }

    /// Says what happens next.
    pub(super) fn tell(&self, sentence: &str) {
        say::line(&format!("\n{sentence}"));
        // It belongs to no command.
        say::kept();
    }

    /// Does what a command of the shell would do, and shows that.
    pub(super) fn shell(&self, command: &str, done: std::io::Result<()>) -> anyhow::Result<()> {
        prompt(command);
        done.map_err(|error| anyhow::Error::new(error).context(command.to_owned()))
    }

    /// Runs a command of dorc, which must end with that exit code.
    pub(super) async fn dorc(&mut self, words: &[&str], expected: u8) -> anyhow::Result<()> {
        let command = shell_words::join(std::iter::once(&"dorc").chain(words));
        prompt(&command);
        say::kept();
        let exit = number(typed(&self.context, words).await);
        let output = say::kept();
        let status: api::Status = self.context.client.get("/v1/apps").await?;
        let (active, release) = status.apps.first().map(active_of).unwrap_or_default();
        let Requests { sent, failed, .. } = self.count();
        let problem = format!("{command}: its exit code is {exit}, not {expected}");
        self.steps.push(Step { command, exit, expected, output, active, release, sent, failed });
        ensure!(exit == expected, problem);
        Ok(())
    }

    /// As `dorc`, while requests go on.
    pub(super) async fn dorc_under_load(&mut self, words: &[&str], expected: u8) -> anyhow::Result<()> {
        let before = self.count().sent;
        self.dorc(words, expected).await?;
        let Requests { sent, failed, .. } = self.count();
        ensure!(sent > before, "no request ended during dorc {}", words.join(" "));
        say::hint("traffic", &format!("{sent} requests so far, {failed} failed"));
        Ok(())
    }

    /// Starts the traffic, and waits until it flows.
    pub(super) async fn start_traffic(
        &mut self,
        address: SocketAddr,
        versions: &'static [&'static str],
    ) -> anyhow::Result<()> {
        let traffic = self.traffic.insert(Traffic::start(address, versions)?);
        ensure!(traffic.is_under_way().await, "the traffic did not get its first answers");
        Ok(())
    }

    /// Asks the app once; it must be this version that answers, in this colour.
    pub(super) async fn ask(&self, address: SocketAddr, version: &str, colour: &str) -> anyhow::Result<()> {
        prompt(&format!("curl {address}"));
        let (answer, _) = Client::new(address, "/", false).ask().await;
        let answer = answer.map_err(|why| anyhow::anyhow!("the app does not answer: {why}"))?;
        say::line(&answer);
        say::kept();
        ensure!(answer == version, "version {answer} answers, not {version}");
        let active = self.steps.last().and_then(|step| step.active.as_deref());
        ensure!(active == Some(colour), "{} is active, not {colour}", active.unwrap_or("no service"));
        Ok(())
    }

    fn count(&self) -> Requests {
        self.traffic.as_ref().map(Traffic::requests).unwrap_or_default()
    }

    /// Ends the traffic: in an orderly way, or at once.
    pub(super) async fn end_traffic(&mut self, in_order: bool) {
        if let Some(traffic) = self.traffic.take() {
            self.requests = if in_order { traffic.finish().await } else { traffic.requests() };
        }
    }

    /// Whether no request failed.
    pub(super) fn is_without_failure(&self) -> anyhow::Result<()> {
        let Requests { sent, failed, .. } = self.requests;
        ensure!(failed == 0, "{failed} of {sent} requests failed");
        Ok(())
    }
}

fn prompt(command: &str) {
    say::line(&Style::Bold.paint(&format!("$ {command}")));
}

fn active_of(app: &api::AppStatus) -> (Option<String>, Option<String>) {
    let service = match app.active.as_deref() {
        Some("green") => Some(&app.green),
        Some(_) => Some(&app.blue),
        None => None,
    };
    (app.active.clone(), service.and_then(|service| service.release.clone()))
}

fn number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(u8::MAX)
}
