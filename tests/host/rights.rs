//! What the deployers of an app may do, and others may not.

use crate::host::TestHost;
use crate::user;

/// The app `web`, which `ci` deploys, and the app `calm`, which it does not.
fn two_apps() -> Option<TestHost> {
    let host = user::serving()?;
    host.sh(
        "useradd --create-home ci && useradd --create-home bob && useradd --create-home --groups dorc ann",
    );
    host.sh(r#"sed -i '1i deployers = ["ci"]' /etc/dorc/apps/web.toml; sed -i '/^\[switch\]/a drain = "1s"' /etc/dorc/apps/web.toml; dorc update web"#);
    host.upload_backend("/srv/upload/calm", "calm", "ok");
    host.sh("dorc register calm --listen 127.0.0.2:80 --release-dir /srv/upload/calm --release-bin backend");
    host.sh(
        "mkdir /home/ci/build && cp /srv/upload/web/* /home/ci/build && chown --recursive ci /home/ci/build",
    );
    Some(host)
}

#[test]
fn a_deployer_deploys_his_app_and_no_more() {
    let Some(host) = two_apps() else { return };
    let load = user::load(&host, "--keep-alive 4 --one-shot 4 --expect one,two");

    host.write("/home/ci/build/version", "two", 0o644);
    host.run_as("ci", "dorc deploy web /home/ci/build --label v2").exits_with(0);
    assert_eq!(host.sh("curl --silent localhost"), "two");
    host.run_as("ci", "dorc rollback web").exits_with(0);
    host.run_as("ci", "dorc switch web --to blue").exits_with(0);
    for command in ["dorc status web", "dorc releases web", "dorc history web", "dorc logs web"] {
        host.run_as("ci", command).exits_with(0);
    }
    let measured = host.run_as("ci", "dorc metrics").stdout_text();
    assert!(measured.contains("app=\"web\"") && !measured.contains("calm"), "{measured}");
    let status = host.run_as("ci", "dorc status --json");
    let names: Vec<_> =
        status.json()["apps"].as_array().expect("a list").iter().map(|app| app["app"].clone()).collect();
    assert_eq!(names, ["web"], "he sees his own");

    for command in [
        "dorc freeze web --reason no",
        "dorc remove web",
        "dorc update web",
        "dorc reload web",
        "dorc pause web",
        "dorc deploy calm",
        "dorc switch calm",
        "dorc status calm",
        "dorc history calm",
        "dorc logs calm",
        "dorc upload calm /home/ci/build",
        "dorc deploy nothing",
    ] {
        let refused = host.run_as("ci", command);
        refused.exits_with(77);
        assert!(refused.stderr_text().contains("deployers"), "{refused}");
    }
    let history = host.sh("dorc history web; dorc history calm");
    for line in ["ci    refused", "POST /v1/apps/web/remove", "POST /v1/apps/calm/deploy"] {
        assert!(history.contains(line), "{line}: {history}");
    }
    let done = host.sh("dorc history web --json");
    assert!(done.contains("\"who\":\"ci\"") && done.contains("\"label\":\"v2\""), "{done}");
    user::nothing_lost(load);
}

#[test]
fn who_is_nobodys_deployer_does_not_get_through() {
    let Some(host) = two_apps() else { return };
    host.run_as("bob", "dorc status").exits_with(77);
    host.run_as("ann", "dorc freeze web --reason fair").exits_with(0);
    host.run_as("ci", "dorc deploy web").exits_with(14);
    host.run_as("ann", "dorc thaw web").exits_with(0);
    // A daemon that starts knows them again, and who is none any more is out.
    host.sh("systemctl restart dorc");
    host.run_as("ci", "dorc status web").exits_with(0);
    host.sh("sed -i '/^deployers/d' /etc/dorc/apps/web.toml && dorc update web");
    host.run_as("ci", "dorc status web").exits_with(77);
    // Refusals are counted, and do not fill the disk.
    let lines =
        || host.sh("dorc history calm --json | grep -o refused | wc -l").parse::<u32>().expect("a number");
    host.sh("sed -i '1i deployers = [\"ci\"]' /etc/dorc/apps/web.toml && dorc update web");
    host.run_as("ci", "sh -c 'for _ in $(seq 60); do dorc switch calm; done'").exits_with(77);
    assert!((10..=25).contains(&lines()), "{}", lines());
}
