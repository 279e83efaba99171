//! dorc comes to a host, and leaves it.

use crate::host::TestHost;
use crate::user::{self, REGISTER};

/// All that dorc may leave traces in, but not what systemd keeps for itself.
const FILES: &str = "find /etc /var/lib /run /usr/local /srv \
    -not -path '/run/systemd*' -not -path '/run/log*' -not -path '/var/lib/systemd*' -not -path '/run/credentials*' \
    -not -path '/run/dbus*' -not -path '/etc/.pwd.lock' -not -path '/etc/g*-' -not -path /var/lib/private | sort";

#[test]
fn the_first_command_that_needs_it_installs_it() {
    let Some(host) = user::fresh() else { return };
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.run("systemctl is-enabled dorc.service").exits_with(1);

    let said = host.sh(REGISTER);

    assert!(said.contains("dorc.service installed and running"), "{said}");
    assert!(said.contains("web is live on 127.0.0.1:80"), "{said}");
    assert_eq!(host.sh("systemctl is-enabled dorc.service green-web.service"), "enabled\nenabled");
    assert_eq!(host.sh("systemctl is-active dorc.service green-web.service"), "active\nactive");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    assert_eq!(host.sh("stat --format '%a %U %G' /run/dorc/dorc.sock"), "660 root dorc");
}

#[test]
fn whoever_may_not_install_is_told_what_to_run() {
    let Some(host) = user::fresh() else { return };
    host.sh("useradd --create-home ci");

    for (command, status) in [
        ("dorc status", 15),
        ("dorc switch web", 77),
        ("dorc register web --listen 80 --release-dir /srv/web --release-bin backend", 77),
        ("dorc install", 77),
        ("dorc uninstall", 77),
    ] {
        let refused = host.run_as("ci", command);
        refused.exits_with(status);
        assert!(refused.stderr_text().contains("sudo "), "{refused}");
    }
    host.run("systemctl cat dorc.service").exits_with(1);

    host.sh("dorc install");
    host.run_as("ci", "dorc status").exits_with(77);
    host.sh("usermod --append --groups dorc ci");
    host.run_as("ci", "dorc status").success();
}

#[test]
fn a_second_installation_changes_nothing_and_a_new_program_is_taken() {
    let Some(host) = user::serving() else { return };
    let (daemon, service) = (host.daemon_pid(), host.main_pid("green-web.service"));

    host.sh("dorc install");
    assert_eq!(host.daemon_pid(), daemon);

    let load = user::load(&host, "--every 5ms");
    host.install_dorc();
    host.sh("dorc install");
    user::nothing_lost(load);
    assert_ne!(host.daemon_pid(), daemon);
    assert_eq!(host.main_pid("green-web.service"), service);
}

#[test]
fn from_a_place_that_others_may_write_to_it_is_copied() {
    let Some(host) = user::fresh() else { return };
    host.sh("useradd --create-home ci && mv /usr/local/bin/dorc ~ci/dorc && chown ci: ~ci/dorc");

    host.sh("~ci/dorc install");

    assert_eq!(host.sh("stat --format '%a %U' /usr/local/bin/dorc"), "755 root");
    assert_eq!(
        host.sh("readlink /proc/$(systemctl show dorc --property MainPID --value)/exe"),
        "/usr/local/bin/dorc"
    );
}

#[test]
fn an_uninstallation_leaves_nothing() {
    let Some(host) = user::fresh() else { return };
    host.upload_backend(user::UPLOADS, "one", "ok");
    let before = everything(&host);
    host.sh(REGISTER);
    user::upload(&host, "two");
    host.sh("dorc switch web && touch /var/lib/private/web/data");

    let refused = host.run("dorc uninstall");
    refused.exits_with(1);
    assert!(refused.stderr_text().contains("web") && refused.stderr_text().contains("--purge"), "{refused}");
    assert_eq!(host.sh("curl --silent localhost"), "two");

    host.sh("dorc uninstall --purge");
    host.sh(&format!("echo one > {}/version", user::UPLOADS));
    assert_eq!(everything(&host), before);
}

#[test]
fn without_purge_only_the_data_of_removed_apps_stays() {
    let Some(host) = user::serving() else { return };
    host.sh("touch /var/lib/private/web/data && dorc remove web && dorc uninstall");

    assert_eq!(host.sh("ls /var/lib/private/web"), "data");
    host.run("ls /etc/dorc /var/lib/dorc /run/dorc /etc/systemd/system/dorc.service").exits_with(2);
    host.run("getent group dorc").exits_with(2);
    host.run("systemctl cat dorc.service green-web.service").exits_with(1);
    // And again: there is nothing to do.
    host.sh("dorc uninstall");
}

/// Files, groups, units, listening sockets.
fn everything(host: &TestHost) -> String {
    host.sh(&format!(
        "{FILES}; getent group; getent passwd; systemctl list-unit-files --no-legend; ss --listening --tcp --no-header; \
         systemctl list-units --all --no-legend --plain '*dorc*' '*web*'"
    ))
}
