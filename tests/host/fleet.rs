//! Several hosts on one bridge, and a machine from which they are deployed over ssh.

use std::thread;

use crate::host::{Output, TestHost};
use crate::user;

/// Three servers on which version `one` of `web` is active, and the machine that deploys them.
struct Fleet {
    ci: TestHost,
    servers: [TestHost; 3],
}

const HOSTS: &str = "--host ci@10.0.0.2 --host ci@10.0.0.3 --host ci@10.0.0.4";

impl Fleet {
    fn boot() -> Option<Self> {
        let booting = [(); 3].map(|()| thread::spawn(user::serving));
        let ci = user::fresh();
        let servers = booting.map(|server| server.join().expect("a server boots"));
        let ([Some(one), Some(two), Some(three)], Some(ci)) = (servers, ci) else { return None };
        let servers = [one, two, three];
        ci.bridge(&servers);
        ci.sh("install -d -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519");
        let key = ci.sh("cat /root/.ssh/id_ed25519.pub");
        for (number, server) in (2..).zip(&servers) {
            server.sh(&format!(
                r#"useradd --create-home --shell /bin/sh ci
                sed -i '1i deployers = ["ci"]' /etc/dorc/apps/web.toml
                sed -i '/^\[switch\]/a drain = "1s"' /etc/dorc/apps/web.toml
                dorc update web
                install -d -m 700 -o ci /home/ci/.ssh && mkdir -p /run/sshd && ssh-keygen -A >/dev/null
                echo 'command="dorc remote --app web",restrict {key}' >/home/ci/.ssh/authorized_keys
                chown ci /home/ci/.ssh/authorized_keys
                /usr/sbin/sshd -o PasswordAuthentication=no -o ListenAddress=10.0.0.{number}"#
            ));
            ci.sh(&format!(
                "for _ in $(seq 100); do ssh-keyscan -t ed25519 10.0.0.{number} 2>/dev/null >>/root/.ssh/known_hosts && \
                 grep -q '10.0.0.{number} ' /root/.ssh/known_hosts && exit 0; sleep 0.1; done; exit 1"
            ));
        }
        ci.upload_backend("/root/build", "two", "ok");
        Some(Self { ci, servers })
    }

    fn deploy(&self, version: &str) -> Output {
        self.ci.write("/root/build/version", version, 0o644);
        self.ci.run(&format!("dorc deploy {HOSTS} web /root/build --label {version}"))
    }

    fn all_serve(&self, version: &str) {
        for server in &self.servers {
            assert_eq!(server.sh("curl --silent localhost"), version);
        }
    }

    /// The third server gets this hook, and no other.
    fn third_with(&self, hook: &str) {
        self.servers[2].sh(&format!(
            r#"sed -i '/^verify = \|^bake = "\/bin/d; /^\[hooks\]/a {hook}' /etc/dorc/apps/web.toml && dorc update web"#
        ));
    }
}

#[test]
fn all_switch_or_none() {
    let Some(fleet) = Fleet::boot() else { return };
    let loads: Vec<_> = fleet
        .servers
        .iter()
        .map(|server| user::load(server, "--keep-alive 2 --one-shot 2 --expect one,two,three,four"))
        .collect();

    // One does not get healthy.
    fleet.third_with(r#"verify = "/bin/false""#);
    let said = fleet.deploy("two");
    said.exits_with(10);
    assert!(
        said.stderr_text().contains("ci@10.0.0.4: ") && said.stderr_text().contains("no host has switched"),
        "{said}"
    );
    fleet.all_serve("one");
    let moves = |server: &TestHost| server.sh("dorc history web").contains(" deploy  ");
    assert!(!moves(&fleet.servers[0]) && !moves(&fleet.servers[1]), "nobody has moved");

    // One fails when it has the traffic.
    fleet.third_with(r#"bake = "/bin/false""#);
    fleet.servers[2].sh(r#"sed -i 's/^bake = "0s"/bake = "2s"/' /etc/dorc/apps/web.toml && dorc update web"#);
    let said = fleet.deploy("three");
    said.exits_with(11);
    assert!(said.stderr_text().contains("all hosts that had switched are back"), "{said}");
    fleet.all_serve("one");

    // None fails.
    fleet.third_with(r#"verify = "/bin/true""#);
    fleet.deploy("four").exits_with(0);
    fleet.all_serve("four");
    for server in &fleet.servers {
        assert!(moves(server) && server.sh("dorc status web").contains(" (four)"));
    }

    // From another machine, as a user without rights there, nothing else can be done.
    for command in ["remove web", "freeze web --reason no", "deploy calm", "status calm", "logs calm"] {
        let (verb, rest) = command.split_once(' ').expect("two words");
        fleet.ci.run(&format!("dorc {verb} --host ci@10.0.0.2 {rest}")).exits_with(77);
    }
    let history = fleet.servers[0].sh("dorc history web");
    for refused in ["POST /v1/apps/web/remove", "POST /v1/apps/calm/deploy", "GET /v1/apps/calm/logs"] {
        assert!(history.contains(refused), "{refused}\n{history}");
    }
    let logs = fleet.ci.sh("dorc logs --host ci@10.0.0.2 web -n 5");
    assert!(logs.lines().count() >= 5, "{logs}");
    for load in loads {
        user::nothing_lost(load);
    }
}

#[test]
fn a_server_that_is_gone_is_noticed_and_said() {
    let Some(fleet) = Fleet::boot() else { return };
    fleet.servers[1].sh(r#"sed -i 's/^bake = "0s"/bake = "3s"/' /etc/dorc/apps/web.toml && dorc update web"#);
    fleet.ci.write("/root/build/version", "two", 0o644);
    let ssh = "DORC_SSH='ssh -o ServerAliveInterval=1 -o ServerAliveCountMax=2 -o ConnectTimeout=3'";
    let deploying = fleet.ci.spawn(&format!("{ssh} dorc deploy {HOSTS} web /root/build"));
    user::wait_for(&fleet.servers[1], "it has switched", |status| status["active"] == "blue");
    fleet.ci.ip("link set port3 down");
    let said = deploying.wait();
    said.exits_with(16);
    let text = said.stderr_text();
    assert!(text.contains("ci@10.0.0.3 does not say what it has"), "{said}");
    assert!(
        text.contains("ci@10.0.0.2 has green r1-") && text.contains("ci@10.0.0.4 has green r1-"),
        "{said}"
    );
    // What was begun there goes on.
    user::wait_for(&fleet.servers[1], "it has settled", |status| status["phase"] == "steady");
    assert_eq!(fleet.servers[1].sh("curl --silent localhost"), "two");
}
