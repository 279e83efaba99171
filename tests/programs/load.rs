//! A strict load generator for tests: it counts every request that did not get its whole, right answer.
//!
//! Two kinds of clients. One keeps its connection and sends request after request on it, as browsers and connection
//! pools do; the other opens a connection for each request. A server may close a kept connection between two requests
//! (RFC 9112, 9.3): a request that meets such a close is sent once more on a new connection and counted as `retried`.
//! Whatever else is not a whole `200` is a failure: a refused or reset connection, an end within an answer, a timeout.
//! When each client has had its first answer it writes `warm` to standard error.

#[path = "load/client.rs"]
mod client;
#[path = "load/tally.rs"]
mod tally;

use std::cell::RefCell;
use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use client::{Client, Request};
use tally::Tally;

/// Sends HTTP requests until it is told to stop, and counts.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Where to.
    #[arg(long)]
    address: SocketAddr,
    /// What to ask for.
    #[arg(long, default_value = "/")]
    path: String,
    /// Clients that keep their connection.
    #[arg(long, default_value_t = 8)]
    keep_alive: usize,
    /// Clients that open a connection for each request.
    #[arg(long, default_value_t = 8)]
    one_shot: usize,
    /// A pause of each client between two requests.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How long an answer may take.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The bodies that are right; without it each is.
    #[arg(long, value_delimiter = ',')]
    expect: Vec<String>,
    /// Stops after so many seconds.
    #[arg(long, required_unless_present = "until_stdin_closes")]
    seconds: Option<f64>,
    /// Stops at the end of standard input.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Says the result as one JSON document.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let tally = Rc::new(RefCell::new(Tally::new(options.keep_alive + options.one_shot)));
    LocalSet::new().run_until(run(&options, &tally)).await;
    let tally = tally.borrow();
    say(&if options.json { tally.json().to_string() } else { tally.to_string() });
    if tally.failed() == 0 && tally.ok() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(options: &Options, tally: &Rc<RefCell<Tally>>) {
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..options.keep_alive + options.one_shot {
        let request = Request {
            address: options.address,
            path: options.path.clone(),
            keep_alive: number < options.keep_alive,
            timeout: options.timeout,
            expect: options.expect.clone(),
        };
        let client = Client::new(request, Rc::clone(tally));
        clients.spawn_local(client.run(options.every, stopped.clone()));
    }
    wait_for_the_end(options).await;
    stop.send_replace(true);
    // Each finishes the request that is on its way, within its timeout.
    while clients.join_next().await.is_some() {}
}

async fn wait_for_the_end(options: &Options) {
    let seconds = options.seconds.map_or(Duration::MAX, Duration::from_secs_f64);
    let stdin = async {
        if !options.until_stdin_closes {
            std::future::pending::<()>().await;
        }
        let (closed, wait) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _whatever_it_was = std::io::stdin().read_to_end(&mut Vec::new());
            closed.send(())
        });
        let _closed = wait.await;
    };
    tokio::select! {
        () = tokio::time::sleep(seconds) => {}
        () = stdin => {}
    }
}

#[expect(clippy::print_stdout, reason = "the result of this program")]
fn say(result: &str) {
    println!("{result}");
}
