//! dorc's planes side by side with their peers, in one run on one machine.
//!
//! `cargo bench --bench peers -- [--rounds 5] [--seconds 2] [--json FILE] [--only dorc,haproxy] [--what keep-alive]`
//!
//! ```text
//! direct                client ─────────────────────→ backend
//! kernel, kernel-1000   client ── program in kernel ─→ backend   one app is loaded, or a thousand; needs root
//! dorc, haproxy, nginx  client ──→ proxy ────────────→ backend
//! ```
//! What counts are the ratios: the client has one half of the machine's processors, and the backend with whatever is in
//! the path the other half, as if they were two machines. The peers take turns within each round, so that a disturbance
//! hits all of them, in an order that changes from round to round, because what ran before leaves its traces in the
//! machine; the median of the rounds is told.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is there to print")]

mod load;
mod peers;
mod plane;
mod processors;
mod report;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use self::peers::{Backend, Kind, Peer};
use self::plane::OwnGroup;
use self::processors::{Processors, Side};
use self::report::Report;

#[derive(Debug, Parser)]
struct Options {
    /// How often each measurement is made.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each of them takes.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Where to write all values.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these peers, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these measurements, by a part of their name.
    #[arg(long, value_delimiter = ',')]
    what: Vec<String>,
    /// Inner use: be the proxy.
    #[command(flatten)]
    child: plane::Options,
    /// What `cargo bench` always says.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.child.plane {
        Some(addresses) => plane::run(addresses, &options.child),
        None => compare(&options),
    }
}

/// The order of a round. In as many rounds as there are kinds each of them comes once right after each other one
/// (a balanced Latin square, Williams 1949; with an odd number it takes twice as many).
fn order(kinds: &[Kind], round: usize) -> Vec<Kind> {
    let count = kinds.len();
    let place = |index: usize| if index % 2 == 1 { index.div_ceil(2) } else { (count - index / 2) % count };
    let mut order: Vec<Kind> = (0..count).map(|index| kinds[(place(index) + round) % count]).collect();
    if count % 2 == 1 && (round / count) % 2 == 1 {
        order.reverse();
    }
    order
}

fn compare(options: &Options) -> Result<()> {
    peers::install_what_is_missing()?;
    let wanted = |kind: &Kind| options.only.is_empty() || options.only.iter().any(|name| name == kind.name());
    let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(wanted).collect();
    let steered = kinds.iter().any(Kind::is_steered);
    let group = steered.then(|| peers::kernel_plane().and_then(|()| OwnGroup::enter()));
    if let Some(Err(reason)) = &group {
        eprintln!("the kernel plane is left out: {reason:#}");
        kinds.retain(|kind| !kind.is_steered());
    }
    if kinds.is_empty() {
        bail!("there is no such peer; they are: {}", Kind::ALL.map(Kind::name).join(", "));
    }
    let processors = Processors::all()?;
    let bulk = peers::source(&processors)?;
    let measured =
        |name: &str| options.what.is_empty() || options.what.iter().any(|part| name.contains(part));
    let mut report = Report::new(options.rounds, options.seconds);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for measurement in load::ALL.iter().filter(|measurement| measured(measurement.name)) {
            // Each is started afresh for each measurement, and so is the backend: none carries the memory of the
            // last one with it, and none meets the ports of its closed connections.
            for kind in order(&kinds, round) {
                processors.be(Side::Server)?;
                let backend = Backend::start(bulk).context("the backend does not start")?;
                let peer =
                    Peer::start(kind, &backend).with_context(|| format!("{} does not start", kind.name()))?;
                processors.be(Side::Client)?;
                let values = (measurement.measure)(&peer, options.seconds)
                    .with_context(|| format!("{} through {}", measurement.name, kind.name()))?;
                report.add(measurement, kind, &values);
            }
        }
    }
    println!("{}", report.tables(&kinds));
    if let Some(path) = &options.json {
        std::fs::write(path, report.json(&kinds)?)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(())
}
