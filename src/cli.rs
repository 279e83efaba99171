//! The command line: one verb a file, and the only place that prints.

mod ask;
mod check;
mod completions;
mod daemon;
mod demo;
pub mod demo_backend;
mod deploy;
mod freeze;
mod history;
mod hosts;
mod install;
mod load;
mod logs;
mod man;
mod metrics;
mod pause;
mod register;
mod releases;
mod reload;
mod remote;
mod remove;
mod resume;
mod rollback;
mod say;
mod schema;
mod send;
mod status;
mod switch;
mod thaw;
mod uninstall;
mod up;
mod update;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::control::api::exit;
use crate::control::client::{Client, ClientError};
use crate::daemon::Places;

/// Blue–green deployment of plain backend programs on Linux with systemd.
///
/// Each app has two services, green-{app} and blue-{app}. One is active and gets the traffic; the other takes the
/// next release. `dorc switch` moves the traffic, and `dorc switch` again is the way back.
#[derive(Debug, Parser)]
#[command(name = "dorc", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// The folder in which `dorc up` runs [default: this one if it is such a folder, else the system's daemon]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    dir: Option<PathBuf>,
    /// Ask the daemon of another machine, over ssh; for dorc deploy also several
    #[arg(
        long,
        global = true,
        value_name = "USER@SERVER",
        help_heading = "Global options",
        conflicts_with = "dir"
    )]
    host: Vec<String>,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done · 1 failed · 2 usage · 10 not healthy, nothing changed · 11 switched, then rolled back ·
12 rollback failed · 13 superseded · 14 busy or frozen · 15 no daemon · 16 hosts disagree · 77 not permitted";

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Ask(Box<Ask>),
    /// Pass requests from another machine on, as the forced command of an ssh key
    Remote(remote::Options),
    /// Be the daemon
    #[command(alias = "start-daemon")]
    Daemon(daemon::Options),
    /// Daemon and services in one foreground process, without root and without systemd
    Up(up::Options),
    /// Watch a whole deployment under load, in a temporary folder
    Demo(demo::Options),
    /// Print a completion script
    Completions(completions::Options),
    /// Print the JSON schema of what --json prints
    Schema(schema::Options),
    /// Print the manual page
    Man,
}

/// What is asked of a daemon, wherever it is.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Make an app known: asks its way through, or takes options or a file
    Register(register::Options),
    /// Take a new app file into the running daemon
    Load(send::Plain),
    /// Take a changed app file into the running daemon
    Update(send::Plain),
    /// Stop routing to an app, stop and delete its services
    Remove(remove::Options),
    /// Move the traffic to the other service; again is the way back
    Switch(switch::Options),
    /// Hand a release over in one piece; it comes up in the inactive colour
    Upload(upload::Options),
    /// Bring a release into service and see it prove itself: one command, one exit code
    Deploy(deploy::Options),
    /// Make the last good release active again
    Rollback(rollback::Options),
    /// Take nothing new into service until `dorc thaw`; the way back stays open
    Freeze(freeze::Options),
    /// End what `dorc freeze` began
    Thaw(send::Plain),
    /// Let new connections wait, for a short time
    Pause(pause::Options),
    /// Let new connections, and those that wait, go to the service again
    Resume(send::Plain),
    /// Run the active service's reload command
    Reload(send::Plain),
    /// Show what is active, what is ready, and what went wrong
    Status(status::Options),
    /// List the releases of an app
    Releases(releases::Options),
    /// Show who did what to an app
    History(history::Options),
    /// Print what is measured, for Prometheus
    Metrics,
    /// Show what the services of an app wrote
    Logs(logs::Options),
    /// Check app files, and what this host can do
    Check(check::Options),
    /// Install dorc.service, and start it
    Install,
    /// Remove dorc from this host
    Uninstall(uninstall::Options),
}

/// Options of all commands that change something.
#[derive(Debug, Args)]
struct Change {
    /// Print JSON: one document, or a line for each step where the command waits
    #[arg(long)]
    json: bool,
    /// Return as soon as the traffic has moved; 14 if something has to come up first
    #[arg(long)]
    no_wait: bool,
    /// Stop waiting after this long, as 90s or 5m; what was begun goes on
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<std::time::Duration>,
}

/// Why a command failed: the exit code and what to print.
#[derive(Debug)]
struct Fail {
    exit: u8,
    message: String,
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fail {}

fn fail(exit: u8, message: impl Into<String>) -> anyhow::Error {
    Fail { exit, message: message.into() }.into()
}

/// What every command gets.
#[derive(Debug)]
struct Context {
    places: Places,
    client: Client,
    /// The other machines that are meant, if any; the client is that of the first one.
    hosts: Vec<String>,
}

impl Context {
    /// The daemon that is meant: that of `--dir`, of the folder we are in, or the system's.
    fn new(dir: Option<PathBuf>, hosts: Vec<String>) -> Self {
        if let Some(host) = hosts.first() {
            return Self { places: Places::system(), client: far(host), hosts };
        }
        let here = PathBuf::from(".");
        let local = dir.or_else(|| here.join(".dorc/dorc.sock").exists().then_some(here));
        let places = local
            .map(|dir| std::path::absolute(&dir).unwrap_or(dir))
            .map_or_else(Places::system, |dir| Places::local(&dir));
        Self { client: Client::new(places.socket.clone()), places, hosts }
    }

    /// The same for one of the other machines.
    fn at(host: &str) -> Self {
        Self::new(None, vec![host.to_owned()])
    }

    /// Whether it is a daemon of `dorc up`.
    const fn is_local(&self) -> bool {
        self.places.base.is_some()
    }
}

/// The daemon of another machine, over the user's own ssh: `$DORC_SSH` may name another program, with arguments.
fn far(host: &str) -> Client {
    let ssh = std::env::var("DORC_SSH").ok().and_then(|words| shell_words::split(&words).ok());
    // A machine that is gone is noticed within a minute.
    let default = || ["ssh", "-o", "ServerAliveInterval=15"].map(str::to_owned).to_vec();
    let ssh = ssh.filter(|words| !words.is_empty()).unwrap_or_else(default);
    let there = ["--", host, "dorc", "remote"].map(str::to_owned);
    Client::far(host.to_owned(), ssh.into_iter().chain(there).collect())
}

/// Runs the program; the exit code says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { dir, host, verb } = Cli::parse();
    dispatch(verb, dir, host).unwrap_or_else(|error| failed(&error))
}

fn dispatch(verb: Verb, dir: Option<PathBuf>, hosts: Vec<String>) -> anyhow::Result<ExitCode> {
    check_hosts(&verb, &hosts)?;
    match verb {
        Verb::Ask(ask) => runtime()?.block_on(perform(&Context::new(dir, hosts), *ask)),
        Verb::Remote(options) => remote::run(&Context::new(dir, hosts), &options),
        Verb::Daemon(options) => daemon::run(&options),
        Verb::Up(options) => up::run(options, dir),
        Verb::Demo(options) => demo::run(&options),
        Verb::Completions(options) => Ok(completions::run(&options, &mut Cli::command())),
        Verb::Schema(options) => Ok(schema::run(&options)),
        Verb::Man => man::run(Cli::command()),
    }
}

/// Another machine can be asked what its daemon does, not what is done beside it.
fn check_hosts(verb: &Verb, hosts: &[String]) -> anyhow::Result<()> {
    let here = |ask: &Ask| matches!(ask, Ask::Register(_) | Ask::Check(_) | Ask::Install | Ask::Uninstall(_));
    match (verb, hosts) {
        (_, []) => Ok(()),
        (Verb::Ask(ask), [_]) if !here(ask) => Ok(()),
        (Verb::Ask(ask), [_, _, ..]) if matches!(**ask, Ask::Deploy(_)) => Ok(()),
        (Verb::Ask(ask), [_, _, ..]) if !here(ask) => {
            Err(fail(exit::USAGE, "only dorc deploy takes several --host; ask one after the other"))
        }
        _ => Err(fail(exit::USAGE, "this works on the machine itself: without --host, in a shell there")),
    }
}

async fn perform(context: &Context, ask: Ask) -> anyhow::Result<ExitCode> {
    match ask {
        Ask::Register(options) => register::run(context, options).await,
        Ask::Load(options) => load::run(context, options).await,
        Ask::Update(options) => update::run(context, options).await,
        Ask::Remove(options) => remove::run(context, options).await,
        Ask::Switch(options) => switch::run(context, options).await,
        Ask::Upload(options) => upload::run(context, options).await,
        Ask::Deploy(options) => deploy::run(context, options).await,
        Ask::Rollback(options) => rollback::run(context, options).await,
        Ask::Freeze(options) => freeze::run(context, options).await,
        Ask::Thaw(options) => thaw::run(context, options).await,
        Ask::Pause(options) => pause::run(context, options).await,
        Ask::Resume(options) => resume::run(context, options).await,
        Ask::Reload(options) => reload::run(context, options).await,
        Ask::Status(options) => status::run(context, options).await,
        Ask::Releases(options) => releases::run(context, options).await,
        Ask::History(options) => history::run(context, options).await,
        Ask::Metrics => metrics::run(context).await,
        Ask::Logs(options) => logs::run(context, options).await,
        Ask::Check(options) => check::run(context, options).await,
        Ask::Install => install::run(context).await,
        Ask::Uninstall(options) => uninstall::run(context, options).await,
    }
}

/// Runs a command line as if it had been typed, and says what went wrong as if it had.
async fn typed(context: &Context, words: &[&str]) -> ExitCode {
    match Cli::try_parse_from(std::iter::once(&"dorc").chain(words)) {
        Ok(Cli { verb: Verb::Ask(ask), .. }) => {
            perform(context, *ask).await.unwrap_or_else(|error| failed(&error))
        }
        Ok(_) => failed(&fail(exit::USAGE, "that is not asked of a daemon")),
        Err(error) => {
            say::error(&error.to_string());
            ExitCode::from(exit::USAGE)
        }
    }
}

/// Says why a command failed.
fn failed(error: &anyhow::Error) -> ExitCode {
    let mend = match error.downcast_ref::<ClientError>() {
        Some(ClientError::NoDaemon(_)) => "; start it: sudo dorc install, or for this folder: dorc up",
        Some(ClientError::NotPermitted(_)) => {
            "; use sudo, join the group, or be named in the app's deployers (then: sudo dorc update APP)"
        }
        _ => "",
    };
    say::error(&format!("{error:#}{mend}"));
    ExitCode::from(exit_code(error))
}

/// One thread is enough for everything but the data plane, which has its own.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(fail) = error.downcast_ref::<Fail>() {
        return fail.exit;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NoDaemon(_)) => exit::NO_DAEMON,
        // What the far side says of itself, or ssh of the way there.
        Some(ClientError::Far { status: Some(code), .. }) if *code == i32::from(exit::NOT_PERMITTED) => {
            exit::NOT_PERMITTED
        }
        Some(ClientError::Far { .. }) => exit::NO_DAEMON,
        Some(ClientError::NotPermitted(_) | ClientError::Forbidden(_)) => exit::NOT_PERMITTED,
        _ => exit::FAILED,
    }
}
