//! Programs that nobody wrote for the kernel plane: however they listen, their clients go straight to them.

mod cluster;
mod headers;
mod redis;
mod sockets;
mod workers;

use serde_json::Value;

use crate::apps::{self, QUICK, SOON, Traffic};
use crate::host::TestHost;

/// Connections that one look at a server makes.
const SOME: u64 = 40;

/// A program that answers `/` with its version and `/peer` with its client's port and its own process.
struct Program<'a> {
    /// A shell script that uploads a version to `/srv/web`; `$1` is the version.
    upload: &'a str,
    /// The app file but for the place and short times.
    file: &'a str,
}

/// A host on which the app `web` serves version `one` on the kernel plane.
#[track_caller]
fn serving(program: &Program) -> Option<TestHost> {
    let host = apps::boot()?;
    host.write("/home/straight.py", include_bytes!("../programs/straight.py"), 0o755);
    host.write("/opt/listeners.py", include_bytes!("../programs/listeners.py"), 0o755);
    host.write("/home/upload", format!("set -e; mkdir -p /srv/web; cd /srv/web\n{}", program.upload), 0o644);
    host.sh("sh /home/upload one");
    let file = program.file;
    let place = if file.contains("listen = ") { "" } else { "listen = 80\n" };
    let text = format!("{place}release_dir = \"/srv/web\"\n{file}\n{QUICK}");
    apps::register(&host, "web", &text).success();
    assert_eq!(apps::get(&host, 80), "one");
    Some(host)
}

/// Brings up version `two` and goes to it, back, and to it again, under traffic of which nothing is lost; before and after, all
/// connections go straight to the service.
#[track_caller]
fn goes_there_and_back(host: &TestHost) {
    all_go_straight(host);
    let traffic = Traffic::start(host, 80, "one,two");
    host.sh("sh /home/upload two");
    apps::switch(host, "web");
    assert_eq!(apps::get(host, 80), "two");
    host.sh("dorc rollback web");
    assert_eq!(apps::get(host, 80), "one");
    apps::switch(host, "web");
    assert_eq!(apps::get(host, 80), "two");
    let answers = traffic.end_without_failure();
    assert!(answers["one"].as_u64() > Some(0) && answers["two"].as_u64() > Some(0), "{answers}");
    all_go_straight(host);
    never_took_the_long_way(host);
}

/// Makes new connections, all of which go straight, and tells how many each process got.
#[track_caller]
fn all_go_straight(host: &TestHost) -> Value {
    let before = accepted(host);
    let found = look(host, "127.0.0.1", SOME);
    assert_eq!((&found["straight"], &found["relayed"]), (&SOME.into(), &0.into()), "{found}");
    assert_eq!(accepted(host) - before, SOME, "{:#}", apps::status(host, "web"));
    found["processes"].clone()
}

/// Waits until new connections go straight.
#[track_caller]
fn go_straight_soon(host: &TestHost, to: &str) {
    host.wait_until(SOON, "connections go straight", || (look(host, to, 8)["straight"] == 8).then_some(()));
}

/// How connections get to the server now.
#[track_caller]
fn look(host: &TestHost, to: &str, connections: u64) -> Value {
    let output = host.run(&format!("python3 /home/straight.py {to} 80 {connections}"));
    output.success();
    output.json()
}

/// How many connections the active service has got, as dorc tells it, on the kernel plane.
#[track_caller]
fn accepted(host: &TestHost) -> u64 {
    let status = apps::status(host, "web");
    assert_eq!(status["plane"], "kernel", "{status:#}");
    let active = status["active"].as_str().expect("a colour is active");
    status[active]["traffic"]["accepted"].as_u64().expect("traffic is counted on the kernel plane")
}

/// There was never a reason to leave the plane.
#[track_caller]
fn never_took_the_long_way(host: &TestHost) {
    let journal = host.journal("dorc");
    assert!(!journal.contains("take the tcp plane"), "{journal}");
}

/// An app of `listeners.py`, which listens in that way.
fn listeners(way: &str) -> String {
    format!(
        "release_bin = \"listeners.py\"\n[service]\nstart = \"/usr/bin/python3 {{bin}} {way} {{port}}\"\n\
         [health]\npath = \"/\"\n"
    )
}

/// How `listeners.py` is uploaded.
const UPLOAD: &str = "printf %s $1 >version; cp /opt/listeners.py .new; mv .new listeners.py";
