//! One deployment on several machines: all are prepared before any of them switches, and if one fails all go back.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::deploy::Options;
use super::{Context, exit_code, fail, say, send, upload};
use crate::control::api::{self, exit};

/// How long a machine may take to say what it has, once something went wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of the machines.
struct Machine<'a> {
    host: &'a str,
    context: Context,
    /// What it is to switch to.
    release: Option<String>,
    /// What it said last.
    answer: api::Answer,
    /// It did not answer: nobody here knows what it has.
    is_lost: bool,
}

/// How far a deployment came.
enum End {
    /// All have it.
    Done,
    /// None has switched.
    NotPrepared(u8),
    /// Those that switched went back.
    Back(u8),
    /// Not all could go back.
    Disagree,
}

/// Deploys on all the machines of `context`.
pub(super) async fn deploy(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let change = &options.change;
    if change.no_wait {
        let why = "--no-wait is for one host: of several, those that have switched go back if one fails";
        return Err(fail(exit::USAGE, why));
    }
    let mut machines: Vec<Machine<'_>> = context
        .hosts
        .iter()
        .map(|host| Machine {
            host,
            context: Context::at(host),
            release: options.release.clone(),
            answer: api::Answer::default(),
            is_lost: false,
        })
        .collect();
    let end = send::within(&options.app, change, on_all(&mut machines, &options)).await?;
    Ok(conclude(&machines, &end, change.json))
}

async fn on_all(machines: &mut [Machine<'_>], options: &Options) -> End {
    if options.path.is_some() {
        join_all(machines.iter_mut().map(|machine| machine.upload(options))).await;
    }
    if let Some(code) = failed(machines) {
        return End::NotPrepared(code);
    }
    join_all(machines.iter_mut().map(|machine| machine.prepare(options))).await;
    if let Some(code) = failed(machines) {
        return End::NotPrepared(code);
    }
    join_all(machines.iter_mut().map(|machine| machine.switch(options))).await;
    let Some(code) = failed(machines) else { return End::Done };
    let back = join_all(machines.iter_mut().map(|machine| machine.take_back(options))).await;
    if back.into_iter().all(|back| back) {
        return End::Back(code);
    }
    join_all(machines.iter_mut().map(|machine| machine.look(&options.app))).await;
    End::Disagree
}

/// What the first of those that failed said.
fn failed(machines: &[Machine<'_>]) -> Option<u8> {
    machines.iter().map(|machine| machine.answer.exit).find(|code| *code != exit::DONE)
}

fn conclude(machines: &[Machine<'_>], end: &End, json: bool) -> ExitCode {
    let code = match end {
        End::Done => exit::DONE,
        End::NotPrepared(code) | End::Back(code) => *code,
        End::Disagree => exit::HOSTS_DISAGREE,
    };
    if json {
        let hosts = machines
            .iter()
            .map(|machine| api::HostAnswer { host: machine.host.to_owned(), answer: machine.answer.clone() });
        say::line(&api::to_json(&api::HostAnswers { exit: code, hosts: hosts.collect() }));
        return ExitCode::from(code);
    }
    match end {
        End::Done => {}
        End::NotPrepared(_) => say::error("no host has switched"),
        End::Back(_) => say::error("all hosts that had switched are back"),
        End::Disagree => {
            let place = |machine: &Machine<'_>| match (&machine.answer.active, &machine.answer.release) {
                (Some(colour), Some(release)) => format!("{} has {colour} {release}", machine.host),
                _ => format!("{} does not say what it has", machine.host),
            };
            let places: Vec<String> = machines.iter().map(place).collect();
            say::error(&format!("the hosts disagree: {}", places.join(", ")));
        }
    }
    ExitCode::from(code)
}

impl Machine<'_> {
    fn is_done(&self) -> bool {
        self.answer.exit == exit::DONE
    }

    async fn upload(&mut self, options: &Options) {
        let Options { app, path: Some(path), called, .. } = options else { return };
        let manner = called.for_deployment();
        self.heard(upload::upload(&self.context, app, path, manner, say::Steps::none()).await);
        self.tell(options, "has it");
        self.release.clone_from(&self.answer.release);
    }

    /// Makes it ready for the switch, and remembers what is ready.
    async fn prepare(&mut self, options: &Options) {
        self.deploy(options, true).await;
        self.tell(options, "is prepared");
        self.release.clone_from(&self.answer.release);
    }

    async fn switch(&mut self, options: &Options) {
        self.deploy(options, false).await;
        self.tell(options, "has switched");
    }

    async fn deploy(&mut self, options: &Options, prepare: bool) {
        let (release, label) = (self.release.clone(), options.called.label.clone());
        let body = api::Deploy { release, prepare, label, no_wait: false };
        self.command(&options.app, "deploy", api::to_json(&body)).await;
    }

    /// Takes it back if it has switched; whether it is where it was. What somebody has deployed since stays.
    async fn take_back(&mut self, options: &Options) -> bool {
        if !self.is_done() {
            // What failed is back by itself, or never went away, unless it says otherwise.
            return !self.is_lost && self.answer.exit != exit::ROLLBACK_FAILED;
        }
        if self.answer.before == self.answer.active {
            return true;
        }
        if self.answer.before.is_none() {
            // Its first release: there is no way back from it.
            return false;
        }
        let body = api::Rollback { if_active: self.answer.release.clone(), ..api::Rollback::default() };
        self.command(&options.app, "rollback", api::to_json(&body)).await;
        self.tell(options, "is back");
        self.is_done()
    }

    /// Asks what it has now.
    async fn look(&mut self, app: &str) {
        let path = format!("/v1/apps/{app}");
        let status = timeout(PATIENCE, self.context.client.get::<api::Status>(&path)).await;
        let app = status.ok().and_then(Result::ok).and_then(|status| status.apps.into_iter().next());
        let active = app.as_ref().and_then(api::AppStatus::active_service);
        self.answer.release = active.and_then(|service| service.release.clone());
        self.answer.active = app.and_then(|app| app.active);
    }

    async fn command(&mut self, app: &str, verb: &str, body: String) {
        let path = format!("/v1/apps/{app}/{verb}");
        let answered = self.context.client.post(&path, body, |_| {}).await;
        self.heard(answered.map_err(Into::into));
    }

    fn heard(&mut self, answered: anyhow::Result<api::Answer>) {
        self.is_lost = answered.is_err();
        self.answer = answered.unwrap_or_else(|error| api::Answer {
            exit: exit_code(&error),
            message: format!("{error:#}"),
            ..api::Answer::default()
        });
    }

    fn tell(&self, options: &Options, done: &str) {
        if options.change.json {
            return;
        }
        if self.is_done() {
            say::done(&format!("{} {done}", self.host), &self.answer.message);
        } else {
            say::error(&format!("{}: {}", self.host, self.answer.message));
        }
    }
}
