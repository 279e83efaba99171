//! Addresses: of clients, and of apps beside each other.

use std::time::Duration;

use super::{accepted, host, on_kernel_plane, relayed};
use crate::host::{Background, TestHost};
use crate::user;

#[test]
fn the_service_sees_the_clients_own_address() {
    let Some(host) = host() else { return };
    for version in ["one", "two"] {
        assert_eq!(host.sh("curl --silent localhost"), version);
        let peer = host.sh("curl --silent --interface 127.0.0.9 --local-port 40000-50000 127.0.0.1/peer");
        let port = peer.strip_prefix("127.0.0.9:").unwrap_or_else(|| panic!("{peer}"));
        assert!((40000..=50000).contains(&port.parse::<u16>().expect("a port")), "{peer}");
        host.sh("dorc switch web --no-wait");
    }
    host.sh("sed -i '/^\\(# \\)\\?plane /d; 1i plane = \"tcp\"' /etc/dorc/apps/web.toml && dorc update web");
    let peer = host.sh("curl --silent --interface 127.0.0.9 127.0.0.1/peer");
    assert!(peer.starts_with("127.0.0.1:"), "the tcp plane has its own: {peer}");
}

#[test]
fn clients_of_another_machine_reach_the_service_itself() {
    let Some(host) = user::fresh() else { return };
    host.sh("ip netns add client && ip link add to-client type veth peer name to-host netns client
        ip addr add 10.9.0.1/24 dev to-client && ip link set to-client up
        ip -n client addr add 10.9.0.2/24 dev to-host && ip -n client link set to-host up");
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.sh(&user::REGISTER.replace("--listen 80", "--listen 0.0.0.0:80"));
    let before = accepted(&on_kernel_plane(&host));

    let peer = host.sh("ip netns exec client curl --silent 10.9.0.1/peer");

    assert!(peer.starts_with("10.9.0.2:"), "{peer}");
    assert_eq!(accepted(&on_kernel_plane(&host)), before + 1);
    // What listens on all addresses is reached by each, and its own port by none of them.
    assert_eq!(host.sh("curl --silent 127.0.0.1"), "one");
    let port = user::status(&host)["green"]["port"].to_string();
    host.run(&format!("ip netns exec client curl --silent --max-time 5 10.9.0.1:{port}")).exits_with(7);

    let load = host.spawn("exec ip netns exec client load --address 10.9.0.1:80 --until-stdin-closes --json --keep-alive 16 --one-shot 8 --expect one,two");
    load.wait_for("warm", user::LONG);
    user::upload(&host, "two");
    user::wait_for_warm(&host);
    host.sh("for _ in $(seq 20); do dorc switch web --no-wait || exit; done; dorc switch web --no-wait");
    assert_eq!(relayed(&host), "");
    let counted = user::nothing_lost(load);
    assert!(counted["bodies"]["two"].as_u64() > Some(0), "{counted}");
}

/// Apps on the same port of different addresses; the versions of each are called by its name.
const APPS: [(&str, &str); 3] = [("left", "127.0.0.2"), ("right", "127.0.0.3"), ("six", "[::1]")];

#[test]
fn apps_on_the_same_port_of_different_addresses_do_not_mix() {
    let Some(host) = user::fresh() else { return };
    host.sh("mkdir /srv/stranger && echo stranger >/srv/stranger/index.html");
    let _stranger = host.spawn("exec python3 -m http.server --directory /srv/stranger --bind 127.0.0.4 80");
    let _udp = host.spawn(&format!("exec python3 -c '{UDP_ECHO}' 127.0.0.2"));
    for (app, address) in APPS {
        host.upload_backend(&format!("/srv/upload/{app}"), &format!("{app}-1"), "dual-stack");
        host.sh(&format!("dorc register {app} --listen '{address}:80' --release-dir /srv/upload/{app} --release-bin backend --health-path /healthz"));
        host.write(&format!("/srv/upload/{app}/version"), format!("{app}-2"), 0o644);
    }
    for (app, _) in APPS {
        wait_for_two(&host, app);
    }
    let loads: Vec<Background> = APPS.iter().map(|(app, address)| load(&host, app, address)).collect();
    let stranger =
        host.spawn("for _ in $(seq 100); do curl --silent --fail --max-time 5 127.0.0.4 || exit; done");
    let udp = host.spawn(&format!("python3 -c '{UDP_CLIENT}' 127.0.0.2"));

    host.sh("for _ in $(seq 50); do for app in left right six; do dorc switch $app --no-wait || exit; done; done >/dev/null");
    assert_eq!(relayed(&host), "");

    for (load, (app, _)) in loads.into_iter().zip(APPS) {
        let counted = user::nothing_lost(load);
        println!("{app}: {counted}");
        for number in [1, 2] {
            assert!(counted["bodies"][format!("{app}-{number}")].as_u64() > Some(50), "{counted}");
        }
    }
    assert_eq!(stranger.wait().success(), ["stranger"; 100].join("\n"));
    assert_eq!(udp.wait().success(), "100 of 100");
    host.run("curl --silent 127.0.0.5").exits_with(7);
}

/// Answers each datagram with itself.
const UDP_ECHO: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 80))
while True:
    s.sendto(*s.recvfrom(100))
"#;

/// Counts the datagrams of a hundred that come back.
const UDP_CLIENT: &str = r#"
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 80))
s.settimeout(5)
came = 0
for number in range(100):
    s.send(b"%d" % number)
    came += s.recv(100) == b"%d" % number
    time.sleep(0.01)
print(came, "of 100")
"#;

fn load(host: &TestHost, app: &str, address: &str) -> Background {
    let load = host.spawn(&format!(
        "exec load --address '{address}:80' --until-stdin-closes --json --keep-alive 8 --one-shot 4 --expect {app}-1,{app}-2"
    ));
    load.wait_for("warm", user::LONG);
    load
}

fn wait_for_two(host: &TestHost, app: &str) {
    host.wait_until(Duration::from_secs(60), "both are ready", || {
        let status = host.run(&format!("dorc status {app} --json")).json()["apps"][0].take();
        assert_eq!(status["plane"], "kernel", "{status:#}");
        (status["phase"] == "steady" && status["blue"]["state"] == "ready").then_some(())
    });
}
