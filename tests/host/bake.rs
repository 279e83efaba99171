//! A release that turns bad after it got traffic goes back by itself.

use std::time::Duration;

use serde_json::Value;

use crate::host::TestHost;
use crate::user;

user::on_each_plane!(
    a_release_that_crashes_goes_back,
    a_release_that_hangs_goes_back,
    a_release_that_falls_ill_goes_back,
);

/// From the fact to the move of the traffic, at the most.
const BACK: Duration = Duration::from_millis(500);

/// How long a probe of these apps may take.
const PROBE: Duration = Duration::from_millis(500);

/// How many clients there are: each has one request at a time.
const CLIENTS: u64 = 12;

/// The app `web` with times that show something.
fn serving(plane: &str) -> Option<TestHost> {
    let host = user::serving_by(plane)?;
    host.sh(
        "sed -i 's/^bake = .*/bake = \"20s\"\\ndrain = \"2s\"/; /^path = /a timeout = \"500ms\"' /etc/dorc/apps/web.toml
        dorc update web",
    );
    Some(host)
}

/// Deploys a release of that behaviour under load: what the clients counted, and how long the way back took.
fn deployed_in_vain(host: &TestHost, behaviour: &str, reason: &str) -> (Value, Duration) {
    let load = user::load(host, "--keep-alive 8 --one-shot 4 --every 5ms --expect one,two");
    host.upload_backend(user::UPLOADS, "two", behaviour);

    let answer = host.run("dorc deploy web --json");

    answer.exits_with(11);
    let said = answer.stdout_text();
    let told: Value = serde_json::from_str(said.lines().last().expect("an answer")).expect("JSON");
    assert_eq!((&told["active"], &told["failed_colour"]), (&"green".into(), &"blue".into()), "{told}");
    assert!(told["failure"]["reason"].to_string().contains(reason), "{told}");
    assert!(told["failure"]["log"].to_string().contains("version two listens"), "{told}");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    let counted = load.wait().json();
    assert_ne!(counted["bodies"]["two"], 0, "it had traffic: {counted}");
    // The same bytes again are not tried by themselves, and everybody is told why.
    let status = user::wait_for(host, "settled", |status| status["phase"] == "steady");
    assert_eq!(
        (&status["blue"]["state"], &status["blue"]["pid"]),
        (&"failed".into(), &Value::Null),
        "{status}"
    );
    let history = host.sh("dorc history web");
    assert!(history.contains("bake") && history.contains(reason), "{history}");
    host.run("dorc switch web").exits_with(10);
    let when = |unit: &str, line: &str| -> f64 {
        let line = host.sh(&format!("journalctl -u {unit} -o short-unix | grep '{line}' | tail -1"));
        line.split(' ').next().and_then(|time| time.parse().ok()).expect("a time")
    };
    let fact = when("blue-web", "panicked\\|something is wrong");
    (counted, Duration::from_secs_f64(when("dorc", "traffic moved") - fact))
}

fn failed(counted: &Value) -> u64 {
    counted["failed"].as_u64().expect("a count")
}

fn a_release_that_crashes_goes_back(plane: &str) {
    let Some(host) = serving(plane) else { return };
    let (counted, back) = deployed_in_vain(&host, "crash-after 6s", "exit status 101");
    assert!(back < BACK, "{back:?}");
    assert!(failed(&counted) <= CLIENTS, "only what it dropped: {counted}");
}

fn a_release_that_hangs_goes_back(plane: &str) {
    let Some(host) = serving(plane) else { return };
    let (counted, back) = deployed_in_vain(&host, "hang-after 6s", "not healthy");
    // That it does not answer is a fact once its time to answer is over.
    assert!(back < PROBE + BACK, "{back:?}");
    assert!(failed(&counted) <= CLIENTS, "only what it did not answer: {counted}");
}

fn a_release_that_falls_ill_goes_back(plane: &str) {
    let Some(host) = serving(plane) else { return };
    let (counted, back) = deployed_in_vain(&host, "unhealthy-after 6s", "not healthy");
    assert!(back < BACK, "{back:?}");
    assert_eq!(failed(&counted), 0, "it answered all it got: {counted}");
}

#[test]
fn a_daemon_that_is_killed_in_the_bake_goes_on_watching() {
    let Some(host) = serving("kernel") else { return };
    host.upload_backend(user::UPLOADS, "two", "crash-after 8s");
    host.sh("dorc switch web");
    host.sh(&format!("kill -9 {}", host.daemon_pid()));
    user::wait_for(&host, "it bakes", |status| status["phase"] == "baking");
    user::wait_for(&host, "it is back", |status| {
        status["active"] == "green" && status["blue"]["state"] == "failed"
    });
    assert_eq!(host.sh("curl --silent localhost"), "one");
}

#[test]
fn a_service_that_keeps_ending_later_is_left_for_the_other_one() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("sed -i '/^bake = /a failover = true' /etc/dorc/apps/web.toml; dorc update web; dorc switch web");
    user::wait_for_warm(&host);
    let load = user::load(&host, "--keep-alive 0 --one-shot 4 --every 5ms --expect one,two");
    let kill_9_anew = "
        last=0
        for _ in 1 2 3; do
            pid=$last
            while [ $pid = 0 ] || [ $pid = $last ]; do
                sleep 0.05; pid=$(systemctl show --value -p MainPID blue-web)
            done
            last=$pid; kill -9 $pid
        done";
    host.sh(kill_9_anew);
    let status = user::wait_for(&host, "failed over", |status| status["active"] == "green");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    let counted = load.wait().json();
    assert!(failed(&counted) <= 3 * 4, "only what it dropped: {counted}");
    assert_ne!(counted["bodies"]["one"], 0, "{counted} {status}");
    let history = host.sh("dorc history web");
    assert!(history.contains("failover") && history.contains("it keeps ending"), "{history}");
    // A user may have it back.
    user::wait_for(&host, "settled", |status| status["phase"] == "steady");
    host.sh("dorc deploy web --release r2");
    assert_eq!(host.sh("curl --silent localhost"), "two");
}
