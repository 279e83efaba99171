//! The environment file of a release goes where the release goes.

use crate::host::TestHost;
use crate::user::{self, UPLOADS};

/// The app `web`, whose environment file says `one`.
fn with_env_file() -> Option<TestHost> {
    let host = user::fresh()?;
    host.write("/etc/dorc/web.env", "GREETING='one two'\n", 0o600);
    host.upload_backend(UPLOADS, "one", "ok");
    host.sh(user::REGISTER);
    host.sh(r#"sed -i '/^\[service\]/a env_file = "/etc/dorc/web.env"' /etc/dorc/apps/web.toml
        sed -i '/^\[switch\]/a drain = "1s"' /etc/dorc/apps/web.toml
        dorc update web && dorc deploy web"#);
    assert_eq!(greeting(&host), "one two");
    Some(host)
}

fn greeting(host: &TestHost) -> String {
    host.sh("curl --silent 'localhost/env?GREETING'")
}

#[test]
fn a_way_back_brings_its_own_environment() {
    let Some(mut host) = with_env_file() else { return };
    let first = user::status(&host);
    let first =
        first[first["active"].as_str().expect("a colour")]["release"].as_str().expect("a release").to_owned();
    host.write("/etc/dorc/web.env", "GREETING=changed\n", 0o600);
    // Only a release is made of it.
    host.sh("dorc update web && dorc deploy web");
    assert_eq!(greeting(&host), "changed");
    // The first one is replaced, and what it was made from is gone.
    user::upload(&host, "three");
    host.sh("dorc deploy web && rm /etc/dorc/web.env");
    assert_eq!((greeting(&host), host.sh("curl --silent localhost")), ("changed".into(), "three".into()));

    host.sh(&format!("dorc rollback web {first}"));

    assert_eq!((greeting(&host), host.sh("curl --silent localhost")), ("one two".into(), "one".into()));
    host.reboot();
    host.wait_until(user::LONG, "it serves", || {
        host.run("curl --silent --fail localhost").status.success().then_some(())
    });
    assert_eq!(greeting(&host), "one two");
}

#[test]
fn nothing_of_it_is_for_others_eyes() {
    let Some(host) = with_env_file() else { return };
    host.sh("useradd --create-home bob");
    let kept = host.sh("echo /var/lib/dorc/apps/web/environments/*.env");
    host.run_as("bob", &format!("cat {kept}")).exits_with(1);
    let told = host.sh(
        "dorc status web --json; dorc history web --json; dorc releases web --json; dorc logs web; journalctl -u dorc --no-pager; cat /etc/systemd/system/*-web.service /var/lib/dorc/apps/web/state.json",
    );
    assert!(!told.contains("one two"), "{told}");
    host.sh("dorc remove web");
    assert_eq!(host.sh("ls /var/lib/dorc/apps/web/environments"), "");
}
