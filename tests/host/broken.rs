//! Files of dorc are broken, or the disk is full.

use crate::host::TestHost;
use crate::user;

const STATE: &str = "/var/lib/dorc/apps/web/state.json";

fn served(host: &TestHost) -> String {
    host.run("curl --silent localhost").stdout_text()
}

#[test]
fn a_broken_state_falls_back_to_the_one_before() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("dorc switch web");
    let pids = (host.main_pid("green-web"), host.main_pid("blue-web"));
    for (times, damage) in
        ["truncate --size=-5", "truncate --size=0", "sed -i s/blue/grue/g"].into_iter().enumerate()
    {
        host.sh(&format!("systemctl stop dorc && {damage} {STATE} && systemctl start dorc"));
        let after = user::wait_for_warm(&host);
        let told = host.journal("dorc").matches("The state before it is used").count();
        assert_eq!(told, times + 1, "{damage}");
        assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids, "{damage}: {after}");
        let expected = if after["active"] == "green" { "one" } else { "two" };
        assert_eq!(served(&host), expected, "{damage}: {after}");
    }
}

#[test]
fn without_any_state_the_app_comes_back_and_others_are_untouched() {
    let Some(host) = user::with_two_versions() else { return };
    host.upload_backend("/srv/api", "api one", "ok");
    host.sh("dorc register api --listen 8000 --release-dir /srv/api --release-bin backend");
    let api = host.main_pid("green-api");

    host.sh(&format!("systemctl stop dorc; for file in {STATE} {STATE}.previous; do echo no >$file; done; systemctl start dorc"));

    host.wait_until(user::LONG, "it serves again", || (served(&host) == "two").then_some(()));
    assert_eq!(
        (host.sh("curl --silent localhost:8000"), host.main_pid("green-api")),
        ("api one".into(), api)
    );
    assert!(host.journal("dorc").contains("the state is lost"));
    assert_eq!(host.sh(&format!("cat {STATE}.broken")), "no", "kept for whoever wants to look");
    user::upload(&host, "three");
    host.sh("dorc switch web");
    assert_eq!(served(&host), "three");
}

#[test]
fn a_bad_app_file_at_the_start_gives_way_to_the_last_good_one() {
    let Some(host) = user::serving() else { return };
    let pid = host.main_pid("green-web");

    host.sh("sed -i s/^listen/listne/ /etc/dorc/apps/web.toml && systemctl restart dorc");

    assert_eq!((served(&host), host.main_pid("green-web")), ("one".into(), pid));
    let told = host.run("dorc status");
    let told = told.success() + &told.stderr_text();
    assert!(told.contains("listne") && told.contains("the configuration before it is used"), "{told}");
    user::upload(&host, "two");
    host.sh("dorc switch web");
    assert_eq!(served(&host), "two");

    host.sh("sed -i s/^listne/listen/ /etc/dorc/apps/web.toml && dorc update web");
    let told = host.run("dorc status");
    assert_eq!((told.success().contains("web"), told.stderr_text()), (true, String::new()));
}

#[test]
fn a_full_disk_is_said_and_the_active_one_serves_on() {
    let Some(host) = user::fresh() else { return };
    // A release of the test backend takes about 7 MB here.
    host.sh("mkdir --parents /var/lib/dorc && mount -t tmpfs -o size=24m,mode=711 tmpfs /var/lib/dorc");
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.sh(user::REGISTER);
    let pid = host.main_pid("green-web");
    host.run("cat /dev/zero >/var/lib/dorc/filler").exits_with(1);

    user::upload(&host, "two");
    let refused = host.run("dorc switch web");
    refused.exits_with(10);
    assert!(refused.stderr_text().contains("No space left on device"), "{refused}");
    assert_eq!((served(&host), host.main_pid("green-web")), ("one".into(), pid));
    host.sh("dorc status web && dorc history web");
    host.sh("systemctl restart dorc");
    assert_eq!((served(&host), host.main_pid("green-web")), ("one".into(), pid));

    host.sh("rm /var/lib/dorc/filler");
    user::upload(&host, "three");
    host.sh("dorc switch web");
    assert_eq!(served(&host), "three");
    host.sh("dorc rollback web");
    assert_eq!(served(&host), "one");
}
