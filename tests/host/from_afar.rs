//! Deploying over a real OpenSSH server, as a user whose key is good for one app.

use crate::host::TestHost;
use crate::user;

/// The app `web`, and a key of root's with which it can be deployed as `ci`, and nothing else done.
fn with_key() -> Option<TestHost> {
    let host = user::serving()?;
    host.sh(
        r#"useradd --create-home --shell /bin/sh ci
        sed -i '1i deployers = ["ci"]' /etc/dorc/apps/web.toml
        sed -i '/^\[switch\]/a drain = "1s"' /etc/dorc/apps/web.toml
        dorc update web
        install -d -m 700 -o ci /home/ci/.ssh && install -d -m 700 /root/.ssh && mkdir -p /run/sshd
        ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
        ssh-keygen -A >/dev/null
        echo "command=\"dorc remote --app web\",restrict $(cat /root/.ssh/id_ed25519.pub)" >/home/ci/.ssh/authorized_keys
        chown ci /home/ci/.ssh/authorized_keys
        /usr/sbin/sshd -o PasswordAuthentication=no -o ListenAddress=127.0.0.1
        for _ in $(seq 100); do ssh-keyscan -t ed25519 127.0.0.1 >/root/.ssh/known_hosts 2>/dev/null && [ -s /root/.ssh/known_hosts ] && break; sleep 0.1; done
        cp --recursive /srv/upload/web /root/build"#,
    );
    Some(host)
}

const HOST: &str = "--host ci@127.0.0.1";

#[test]
fn a_key_for_one_app_deploys_it_and_does_nothing_else() {
    let Some(host) = with_key() else { return };
    let load = user::load(&host, "--keep-alive 4 --one-shot 4 --expect one,two");
    host.write("/root/build/version", "two", 0o644);

    let deployed = host.run(&format!("dorc deploy {HOST} web /root/build --label v2"));

    deployed.exits_with(0);
    assert!(deployed.stdout_text().contains("traffic moved"), "{deployed}");
    assert_eq!(host.sh("curl --silent localhost"), "two");
    host.run(&format!("dorc rollback {HOST} web")).exits_with(0);
    assert_eq!(host.sh("curl --silent localhost"), "one");
    let history = host.sh("dorc history web --json");
    assert!(history.contains("\"who\":\"ci\"") && history.contains("\"label\":\"v2\""), "{history}");

    for refused in [
        "deploy calm",
        "status calm",
        "remove web",
        "freeze web --reason no",
        "deploy ..%2fweb",
        "status web%2f..%2fcalm",
    ] {
        let (verb, rest) = refused.split_once(' ').expect("two words");
        host.run(&format!("dorc {verb} {HOST} {rest}")).exits_with(77);
    }
    // Whatever is asked of ssh, it is the forced command that runs.
    for trick in ["cat /etc/passwd", "dorc remote", "sh -c 'dorc remove web'"] {
        let said = host.run(&format!("ssh ci@127.0.0.1 {trick:?} </dev/null"));
        assert_eq!(said.stdout_text(), "", "{said}");
    }
    for raw in ["GET /v1/apps/web/../calm", "POST /v1/limit/calm", "POST /v1/apps//web/remove"] {
        let raw = format!(
            "(printf '{raw} HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'; sleep 1) | ssh ci@127.0.0.1 | head -1"
        );
        assert!(host.sh(&raw).contains("403 Forbidden"), "{raw}");
    }
    assert!(host.sh("dorc history web").contains("GET /v1/apps/web/../calm"));
    user::nothing_lost(load);
}

#[test]
fn what_is_wrong_with_the_way_is_said() {
    let Some(host) = with_key() else { return };
    let said = host.run("dorc status --host nobody@127.0.0.1");
    said.exits_with(15);
    assert!(said.stderr_text().contains("Permission denied"), "{said}");
    host.sh("systemctl stop dorc");
    host.run(&format!("dorc status {HOST}")).exits_with(15);
}
