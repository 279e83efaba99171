//! Credentials of a release reach its services, and nobody else.

use crate::host::TestHost;
use crate::user::{self, UPLOADS};

/// The app `web` with a plain credential that says `one`, and an encrypted one. Its hook prints both.
fn with_credentials() -> Option<TestHost> {
    let host = user::fresh()?;
    host.write("/etc/dorc/db", "one-secret", 0o600);
    host.sh(
        "printf sealed-secret | systemd-creds encrypt --with-key=host --name=tls.key - /etc/dorc/tls.cred",
    );
    host.upload_backend(UPLOADS, "one", "ok");
    host.sh(user::REGISTER);
    let section = r#"
[service.credentials]
db = "/etc/dorc/db"
"tls.key" = { encrypted = "/etc/dorc/tls.cred" }
"#;
    host.write("/root/section", section, 0o644);
    let told = r#"verify = """/bin/sh -c 'cd $CREDENTIALS_DIRECTORY && cat db tls.key >$STATE_DIRECTORY/verified'""""#;
    host.write("/root/hook", told, 0o644);
    host.sh(r#"cat /root/section >>/etc/dorc/apps/web.toml
        sed -i '/^\[hooks\]/r /root/hook' /etc/dorc/apps/web.toml
        sed -i '/^\[switch\]/a drain = "1s"' /etc/dorc/apps/web.toml
        dorc check web && dorc update web && dorc deploy web"#);
    Some(host)
}

/// What the active service itself reads, by its own right.
fn read(host: &TestHost, name: &str) -> String {
    let active = user::status(host)["active"].as_str().expect("a colour").to_owned();
    host.sh(&format!(
        "pid=$(systemctl show --property MainPID --value {active}-web)
        nsenter --target $pid --mount --setuid $(stat --format %u /proc/$pid) cat /run/credentials/{active}-web.service/{name}"
    ))
}

#[test]
fn a_service_and_its_hooks_get_them_and_a_way_back_brings_its_own() {
    let Some(mut host) = with_credentials() else { return };
    assert_eq!((read(&host, "db"), read(&host, "tls.key")), ("one-secret".into(), "sealed-secret".into()));
    assert_eq!(host.sh("cat /var/lib/private/web/verified"), "one-secretsealed-secret");
    let status = user::status(&host);
    let first =
        status[status["active"].as_str().expect("a colour")]["release"].as_str().expect("one").to_owned();

    host.write("/etc/dorc/db", "two-secret", 0o600);
    assert_eq!(read(&host, "db"), "one-secret", "only a release is made of it");
    host.sh("dorc update web && dorc deploy web");
    assert_eq!(read(&host, "db"), "two-secret");
    user::upload(&host, "three");
    host.sh("dorc deploy web && rm /etc/dorc/db /etc/dorc/tls.cred");

    host.sh(&format!("dorc rollback web {first}"));
    assert_eq!((read(&host, "db"), read(&host, "tls.key")), ("one-secret".into(), "sealed-secret".into()));
    host.reboot();
    host.wait_until(user::LONG, "it serves", || {
        host.run("curl --silent --fail localhost").status.success().then_some(())
    });
    assert_eq!(read(&host, "db"), "one-secret");
}

#[test]
fn nothing_of_them_is_for_others_eyes() {
    let Some(host) = with_credentials() else { return };
    host.sh("useradd --create-home bob");
    for file in ["/var/lib/dorc/apps/web/credentials/*/db", "/run/credentials/blue-web.service/db"] {
        host.run_as("bob", &format!("cat {}", host.sh(&format!("echo {file}")))).exits_with(1);
    }
    let told = host.sh(
        "dorc status web --json; dorc history web --json; dorc releases web --json; dorc logs web; dorc metrics
        journalctl -u dorc --no-pager; cat /etc/systemd/system/*-web.service /var/lib/dorc/apps/web/state.json",
    );
    assert!(!told.contains("one-secret") && !told.contains("sealed-secret"), "{told}");
    assert_eq!(host.run("grep --recursive --quiet sealed-secret /var/lib/dorc").status.code(), Some(1));

    // One that is not there is said before anything is changed.
    host.sh("rm /etc/dorc/db");
    let refused = host.run("dorc update web");
    refused.exits_with(1);
    assert!(
        refused.stderr_text().contains("service.credentials.db: /etc/dorc/db can't be read"),
        "{refused}"
    );
    assert_eq!(host.sh("curl --silent localhost"), "one");
    host.sh("dorc remove web");
    assert_eq!(host.sh("ls /var/lib/dorc/apps/web/credentials"), "");
}
