//! One deployment on several machines: all are prepared before any of them switches, and if one fails all go back.

use std::process::ExitCode;

use futures_util::future::join_all;

use super::deploy::Options;
use super::{Context, exit_code, say, upload};
use crate::control::api::{self, exit};

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

/// Deploys on all the machines of `context`.
pub(super) async fn deploy(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, path, release, called, change } = options;
    let mut machines: Vec<Machine<'_>> =
        context.hosts.iter().map(|host| Machine::new(host, release.clone())).collect();
    if let Some(path) = &path {
        for machine in &mut machines {
            let uploaded = upload::upload(&machine.context, &app, path, &called, &change).await;
            machine.heard(uploaded);
            machine.release = machine.answer.release.clone();
        }
    }
    let body = |machine: &Machine<'_>, prepare| api::Deploy {
        release: machine.release.clone(),
        prepare,
        label: called.label.clone(),
        no_wait: false,
    };
    if machines.iter().all(Machine::is_done) {
        join_all(machines.iter_mut().map(|machine| {
            let body = api::to_json(&body(machine, true));
            machine.command(&app, "deploy", body)
        }))
        .await;
        for machine in &mut machines {
            machine.tell(change.json, "is prepared");
            machine.release = machine.answer.release.clone();
        }
    }
    let prepared = machines.iter().all(Machine::is_done);
    if prepared {
        join_all(machines.iter_mut().map(|machine| {
            let body = api::to_json(&body(machine, false));
            machine.command(&app, "deploy", body)
        }))
        .await;
        machines.iter().for_each(|machine| machine.tell(change.json, "has switched"));
    }
    let mut code = machines.iter().map(|machine| machine.answer.exit).find(|code| *code != exit::DONE);
    if let (true, Some(_)) = (prepared, code)
        && !all_back(&mut machines, &app, change.json).await
    {
        code = Some(exit::HOSTS_DISAGREE);
    }
    Ok(conclude(&machines, code.unwrap_or(exit::DONE), prepared, change.json))
}

/// Takes those back that have switched; whether all are where they were.
async fn all_back(machines: &mut [Machine<'_>], app: &str, json: bool) -> bool {
    let switched = machines.iter_mut().filter(|machine| machine.has_moved());
    let back = join_all(switched.map(|machine| async {
        machine.command(app, "rollback", api::to_json(&api::Rollback::default())).await;
        machine.tell(json, "is back");
        machine.is_done()
    }));
    let back = back.await.into_iter().all(|back| back);
    // Those that failed are back by themselves, or never went away; only a way back that failed leaves one there.
    back && machines.iter().all(|machine| !machine.is_lost && machine.answer.exit != exit::ROLLBACK_FAILED)
}

fn conclude(machines: &[Machine<'_>], code: u8, prepared: bool, json: bool) -> ExitCode {
    if json {
        let hosts = machines
            .iter()
            .map(|machine| api::HostAnswer { host: machine.host.to_owned(), answer: machine.answer.clone() });
        say::line(&api::to_json(&api::HostAnswers { exit: code, hosts: hosts.collect() }));
    } else if code == exit::HOSTS_DISAGREE {
        let place = |machine: &Machine<'_>| match (&machine.answer.active, &machine.answer.release) {
            (Some(colour), Some(release)) => format!("{} has {colour} {release}", machine.host),
            _ => format!("{} does not say what it has", machine.host),
        };
        let places: Vec<String> = machines.iter().map(place).collect();
        say::error(&format!("the hosts disagree: {}", places.join(", ")));
    } else if code != exit::DONE && !prepared {
        say::error("no host has switched");
    } else if code != exit::DONE {
        say::error("all hosts are where they were");
    }
    ExitCode::from(code)
}

impl<'a> Machine<'a> {
    fn new(host: &'a str, release: Option<String>) -> Self {
        Self { host, context: Context::at(host), release, answer: api::Answer::default(), is_lost: false }
    }

    fn is_done(&self) -> bool {
        self.answer.exit == exit::DONE
    }

    /// Whether what it said last is that it has switched, rather than that there was nothing to do.
    fn has_moved(&self) -> bool {
        self.is_done() && self.answer.before.is_some() && self.answer.before != self.answer.active
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

    fn tell(&self, json: bool, done: &str) {
        if json {
            return;
        }
        if self.is_done() {
            say::done(&format!("{} {done}", self.host), &self.answer.message);
        } else {
            say::error(&format!("{}: {}", self.host, self.answer.message));
        }
    }
}
