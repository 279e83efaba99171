//! `dorc status`

use std::process::ExitCode;

use clap::Args;

use super::say::{self, Style};
use super::{Context, fail};
use crate::control::api::{self, exit};
use crate::control::client::ClientError;
use crate::model::colour::Colour;

/// Options of `dorc status`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app [default: all]
    app: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it again at each change, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// A cell as it is measured, and as it is printed.
type Cell = (String, String);

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let of_one = options.app.as_ref().map(|app| format!("/v1/apps/{app}"));
    let path = of_one.clone().unwrap_or_else(|| "/v1/apps".into());
    if !options.watch {
        show(&options, &context.client.get(&path).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = of_one.map_or_else(|| "/v1/changes".into(), |path| path + "/changes");
    let mut changes = context.client.lines("GET", &path, String::new()).await?;
    // A stream that breaks off and one that ends are the same: nobody is there any more.
    while let Ok(Some(line)) = changes.next().await {
        show(&options, &api::from_json(&line).map_err(ClientError::Broken)?)?;
    }
    Err(fail(exit::NO_DAEMON, "the daemon went away"))
}

fn show(options: &Options, status: &api::Status) -> anyhow::Result<()> {
    if options.json {
        say::line(&if options.watch { api::to_json(status) } else { api::to_pretty_json(status) });
        return Ok(());
    }
    if options.watch {
        // Clears the screen.
        say::line("\u{1b}[H\u{1b}[2J");
    }
    match (&options.app, status.apps.as_slice()) {
        (Some(_), [app]) => one(app),
        (Some(app), []) if status.broken.is_empty() => {
            return Err(fail(exit::FAILED, format!("{app} is not loaded any more")));
        }
        (_, []) if status.broken.is_empty() => say::line("no apps yet: dorc register"),
        (_, apps) => table(apps),
    }
    for broken in &status.broken {
        say::error(&format!("{}: {}", broken.app, broken.problem));
    }
    Ok(())
}

fn table(apps: &[api::AppStatus]) {
    let rows = apps.iter().map(|app| {
        let plain = |text: String| (text.clone(), text);
        let (active, inactive) = services(app);
        vec![
            plain(app.app.clone()),
            plain(app.listen.join(" ")),
            plain(app.plane.clone()),
            active.map_or_else(|| plain("–".into()), service_cell),
            service_cell(inactive),
            plain(say::plain(&app.state)),
        ]
    });
    print_table(&["APP", "LISTEN", "PLANE", "ACTIVE", "INACTIVE", "STATE"], rows.collect());
}

/// The active service, and the other one.
fn services(app: &api::AppStatus) -> (Option<&api::ServiceStatus>, &api::ServiceStatus) {
    let inactive = if app.active.as_deref() == Some("green") { &app.blue } else { &app.green };
    (app.active_service(), inactive)
}

fn colour_of(service: &api::ServiceStatus) -> Option<Colour> {
    service.service.split_once('-').and_then(|(colour, _)| colour.parse().ok())
}

fn service_cell(service: &api::ServiceStatus) -> Cell {
    let Some(colour) = colour_of(service) else { return Cell::default() };
    let mark = match service.state.as_str() {
        "active" => "●",
        "ready" | "draining" => "○",
        "canary" => "◐",
        "starting" => "◌",
        "failed" => "✗",
        _ => return ("–".into(), Style::Dim.paint("–")),
    };
    let release = service.release.as_deref().unwrap_or_default();
    let label = service.label.as_ref().map(|label| format!(" ({})", say::plain(label))).unwrap_or_default();
    let text = format!("{mark} {:<5} {release}{label}", colour.name());
    let style = if service.state == "failed" { Style::Red } else { Style::of(colour) };
    (text.clone(), style.paint(&text))
}

fn one(app: &api::AppStatus) {
    say::line(&format!("{}  {}", Style::Bold.paint(&app.app), say::plain(&app.state)));
    say::hint("listen", &app.listen.join(" "));
    let why = app.plane_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    say::hint("plane", &format!("{}{why}", app.plane));
    let (active, inactive) = services(app);
    if let Some(active) = active {
        service_line("active", active);
    }
    service_line("inactive", inactive);
    say::hint("upload to", &app.release_dir);
    let notes = [
        ("upload", app.upload.as_ref()),
        ("waits", app.queued.as_ref()),
        ("last exit", app.last_exit.as_ref()),
    ];
    for (label, text) in notes {
        if let Some(text) = text {
            say::hint(label, &say::plain(text));
        }
    }
    if let Some(release) = &app.way_back {
        say::hint("way back", &format!("dorc rollback {}   ({release})", app.app));
    }
}

fn service_line(label: &str, service: &api::ServiceStatus) {
    let (_, cell) = service_cell(service);
    let mut details = vec![format!("port {}", service.port)];
    if let Some(pid) = service.pid {
        details.push(format!("pid {pid}"));
    }
    details.push(say::count(service.connections, "connection"));
    if service.restarts > 0 {
        details.push(format!("started again {} times", service.restarts));
    }
    say::hint(label, &format!("{cell}  {} ({})", service.state, details.join(", ")));
    if let Some(traffic) = service.traffic.filter(|traffic| traffic.accepted > 0) {
        say::hint("", &traffic_line(&traffic));
    }
    if let Some(failure) = &service.failure {
        say::hint("", &Style::Red.paint(&say::plain(&failure.reason)));
        for text in &failure.log {
            say::hint("", &say::plain(text));
        }
    }
}

/// What passed to a service, for people.
fn traffic_line(traffic: &api::Traffic) -> String {
    let mut parts =
        vec![format!("{} since dorc routes to it", say::count(traffic.accepted as usize, "connection"))];
    if traffic.closed > 0 {
        parts.push(format!("{} closed by dorc", traffic.closed));
    }
    if let Some(time) = traffic.round_trip_us {
        let bytes = |count| indicatif::BinaryBytes(count).to_string();
        let (received, sent) = (bytes(traffic.received_bytes), bytes(traffic.sent_bytes));
        parts.push(format!("the open ones received {received} and sent {sent}, round trip {time} µs"));
    }
    parts.join(", ")
}

/// Prints rows below their titles, each column as wide as it has to be.
pub(super) fn print_table(titles: &[&str], rows: Vec<Vec<Cell>>) {
    if rows.is_empty() {
        return;
    }
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| width(text));
            cells.chain([width(title)]).max().unwrap_or_default()
        })
        .collect();
    let print = |cells: &[Cell]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|((text, shown), wanted)| format!("{shown}{:1$}", "", wanted - width(text)));
        say::line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(&titles.iter().map(|title| ((*title).into(), Style::Dim.paint(title))).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
}
