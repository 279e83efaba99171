//! Redis: one connection, many commands, and an answer to each.

use super::{accepted, never_took_the_long_way};
use crate::apps;

/// On one connection: batches of commands, a command whose answer takes longer than the whole switch, half a command, and batches
/// again when all that has passed. It says when the switch may come, and goes on at a line on standard input.
const CLIENT: &str = r#"
import socket, sys, time
client = socket.create_connection(("127.0.0.1", 80))
client.settimeout(20)
answers = client.makefile("rb")
def batch(count, first):
    client.sendall(b"INCR counter\r\n" * count)
    for number in range(first, first + count):
        assert answers.readline() == b":%d\r\n" % number, number
def who():
    client.sendall(b"CLIENT INFO\r\n")
    info = answers.read(int(answers.readline()[1:]) + 2).decode()
    # The server sees the address that this client asked for, and this client.
    assert " laddr=127.0.0.1:80 " in info, info
    assert " addr=127.0.0.1:%d " % client.getsockname()[1] in info, info
batch(1000, 1)
who()
end, sent, told = time.monotonic() + 3, 1000, False
while time.monotonic() < end:
    batch(100, sent + 1)
    sent += 100
    if not told:
        print("pipelines", flush=True)
        told = True
client.sendall(b"BLPOP nothing 3\r\n")
assert answers.readline() == b"*-1\r\n"
client.sendall(b"INCR coun")
time.sleep(3)
client.sendall(b"ter\r\n")
assert answers.readline() == b":%d\r\n" % (sent + 1)
batch(1000, sent + 2)
who()
print("answered", sent + 1001)
"#;

#[test]
fn redis_answers_an_old_connection_to_its_end() {
    let Some(host) = apps::boot() else { return };
    let run =
        "#!/bin/sh\nexec redis-server redis.conf --port $PORT --bind 127.0.0.1 --dir $STATE_DIRECTORY\n";
    host.write("/srv/web/run", run, 0o755);
    host.write("/srv/web/redis.conf", "save \"\"\n# one\n", 0o644);
    let text = "listen = 80\nrelease_dir = \"/srv/web\"\nrelease_bin = \"run\"\n\
        [health]\ncommand = \"/usr/bin/redis-cli -p {port} ping\"\n\
        [switch]\ndrain = \"60s\"\n[release]\nsettle = \"200ms\"\n";
    apps::register(&host, "web", text).success();
    let ask = "redis-cli -p 80";
    let before = accepted(&host);
    host.sh(&format!("for _ in $(seq 20); do {ask} client info | grep -q laddr=127.0.0.1:80 || exit; done"));
    assert_eq!(accepted(&host) - before, 20);
    host.write("/srv/web/redis.conf", "save \"\"\n# two\n", 0o644);
    apps::await_status(&host, "web", "/state", "ready to switch");
    let run_of = |host: &crate::host::TestHost| host.sh(&format!("{ask} info server | grep run_id"));
    let old = run_of(&host);
    host.write("/home/client.py", CLIENT, 0o644);

    let client = host.spawn("python3 /home/client.py");
    client.wait_for("pipelines", apps::SOON);
    host.sh("dorc switch web --no-wait");
    host.wait_until(apps::SOON, "others go to the new one", || (run_of(&host) != old).then_some(()));
    assert_eq!(host.sh(&format!("{ask} get counter")), "");
    let answered = client.wait().success();
    let count = answered.rsplit(' ').next().expect("a number").to_owned();

    host.sh("dorc rollback web");
    assert_eq!(run_of(&host), old);
    assert_eq!(host.sh(&format!("{ask} get counter")), count);
    host.sh(&format!("{ask} client info | grep laddr=127.0.0.1:80"));
    never_took_the_long_way(&host);
}
