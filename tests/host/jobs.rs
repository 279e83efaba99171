//! Jobs that deploy at the same time, that are killed, and that run again.

use std::time::Duration;

use crate::host::{Background, TestHost};
use crate::user;

/// An app whose deployments take seconds, not a minute.
fn serving() -> Option<TestHost> {
    let host = user::serving()?;
    host.sh(r#"sed -i 's/^bake = .*/bake = "1s"\ndrain = "1s"/' /etc/dorc/apps/web.toml && dorc update web"#);
    Some(host)
}

/// A job that uploads a version and deploys it.
fn job(host: &TestHost, version: &str) -> Background {
    user::upload(host, version);
    let job = host.spawn("exec dorc deploy web");
    // It has asked before the next one uploads.
    std::thread::sleep(Duration::from_millis(300));
    job
}

#[test]
fn of_two_jobs_the_newest_wins() {
    let Some(host) = serving() else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect one,two,three,four,five");
    for (first, second) in [("two", "three"), ("four", "five")] {
        let (first, newest) = (job(&host, first), job(&host, second));
        let first = first.wait();
        assert!(matches!(first.status.code(), Some(0 | 13)), "{first}");
        newest.wait().success();
        assert_eq!(host.sh("curl --silent localhost"), second);
    }
    user::nothing_lost(load);
}

#[test]
fn a_job_that_is_killed_leaves_no_lock() {
    let Some(host) = serving() else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect one,even,odd");
    for (round, after) in [0, 100, 300, 600, 1000, 1500, 2000, 2500, 3000, 4000].into_iter().enumerate() {
        let (killed, next) = if round % 2 == 0 { ("even", "odd") } else { ("odd", "even") };
        user::upload(&host, killed);
        let waits =
            format!("dorc deploy web & sleep {}; kill -9 $!", Duration::from_millis(after).as_secs_f64());
        host.run(&waits);
        user::upload(&host, next);
        host.run("dorc deploy web").exits_with(0);
        assert_eq!(host.sh("curl --silent localhost"), next, "killed after {after} ms");
    }
    user::nothing_lost(load);
}

#[test]
fn a_job_that_runs_again_does_no_harm() {
    let Some(host) = serving() else { return };
    for _ in 0..3 {
        user::upload(&host, "two");
        host.run("dorc deploy web").exits_with(0);
        assert_eq!(host.sh("curl --silent localhost"), "two");
    }
    assert_eq!(host.sh("dorc history web | grep -c ' deploy '"), "1");
    user::upload(&host, "three");
    host.run("timeout --signal=INT 0.5 dorc deploy web; dorc deploy web").exits_with(0);
    assert_eq!(host.sh("curl --silent localhost"), "three");
}
