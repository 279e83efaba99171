//! Programs that nobody wrote for dorc, as their users would deploy them, in the sandbox that is the default.

use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// A program: how a version of it is uploaded to `/srv/app`, and its app file but for `listen` and the place.
struct Program {
    /// A shell script; `$1` is the version, and so what the program answers.
    upload: &'static str,
    file: &'static str,
}

/// Registered, given a new release, switched and rolled back under traffic, without a request lost.
fn goes_there_and_back(program: &Program) {
    let Some(host) = apps::boot() else { return };
    host.write("/home/upload", format!("set -e; mkdir -p /srv/app; cd /srv/app\n{}", program.upload), 0o644);
    host.sh("sh /home/upload one");
    let text = format!("listen = 8080\nrelease_dir = \"/srv/app\"\n{}\n{QUICK}", program.file);
    apps::register(&host, "app", &text).success();
    assert_eq!(apps::get(&host, 8080), "one");
    let traffic = Traffic::start(&host, 8080, "one,two");

    host.sh("sh /home/upload two");
    apps::switch(&host, "app");
    assert_eq!(apps::get(&host, 8080), "two");
    host.sh("dorc rollback app");
    assert_eq!(apps::get(&host, 8080), "one");
    apps::switch(&host, "app");
    assert_eq!(apps::get(&host, 8080), "two");

    let answers = traffic.end_without_failure();
    assert!(answers["one"].as_u64() > Some(0) && answers["two"].as_u64() > Some(0), "{answers}");
    assert_dynamic_user(&host);
}

/// The sandbox was there: its user exists only while the service runs.
fn assert_dynamic_user(host: &TestHost) {
    let show = "systemctl show --property DynamicUser,NoNewPrivileges,ProtectSystem blue-app.service";
    assert_eq!(host.sh(show), "DynamicUser=yes\nProtectSystem=strict\nNoNewPrivileges=yes");
}

#[test]
fn caddy_answers() {
    goes_there_and_back(&Program {
        upload: "cp /usr/bin/caddy .caddy; mv .caddy caddy; printf %s $1 >Caddyfile.version",
        // What it answers is configuration here: the release differs by its files.
        file: r#"
release_bin = "caddy"
[service]
start = "/bin/sh -c 'exec {bin} respond --listen 127.0.0.1:{port} \"$(cat Caddyfile.version)\"'"
"#,
    });
}

#[test]
fn caddy_serves_files() {
    goes_there_and_back(&Program {
        upload: r#"
            mkdir -p site; printf %s $1 >site/index.html
            printf '#!/bin/sh\nexec caddy file-server --listen 127.0.0.1:$PORT --root site\n' >run
            chmod +x run
        "#,
        file: r#"
release_bin = "run"
[health]
path = "/"
"#,
    });
}

#[test]
fn python_serves_files() {
    goes_there_and_back(&Program {
        upload: r#"
            printf %s $1 >index.html
            printf '#!/bin/sh\nexec python3 -m http.server --bind 127.0.0.1 "$PORT"\n' >serve
            chmod +x serve
        "#,
        file: r#"
release_bin = "serve"
[health]
path = "/"
"#,
    });
}

#[test]
fn python_reads_a_file_that_is_no_program_itself() {
    goes_there_and_back(&Program {
        upload: r#"
            cat >server.py <<END
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"$1")
class Server(ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
END
        "#,
        file: r#"
release_bin = "server.py"
[service]
start = "/usr/bin/python3 {bin} {port}"
[health]
path = "/"
"#,
    });
}

#[test]
fn node_serves() {
    goes_there_and_back(&Program {
        upload: r##"
            printf %s $1 >version
            cat >server.js <<'END'
#!/usr/bin/env node
const version = require('fs').readFileSync(__dirname + '/version')
require('http').createServer((_, answer) => answer.end(version)).listen(process.env.PORT, '127.0.0.1')
END
            chmod +x server.js
        "##,
        file: "release_bin = \"server.js\"\n",
    });
}

/// Sends batches on one connection for three seconds, a switch among them, and wants an answer to each command.
const PIPELINE: &str = r#"
import socket, sys, time
client = socket.create_connection(("127.0.0.1", 6380))
client.settimeout(20)
answers = client.makefile("rb")
def batch(count, first):
    client.sendall(b"".join(b"INCR counter\r\n" for _ in range(count)))
    for number in range(first, first + count):
        assert answers.readline() == b":%d\r\n" % number, number
batch(1, 1)
print("connected", flush=True)
end, sent = time.monotonic() + 3, 1
while time.monotonic() < end:
    batch(100, sent + 1)
    sent += 100
print("answered", sent)
"#;

#[test]
fn redis_answers_all_of_a_pipeline_across_a_switch() {
    let Some(host) = apps::boot() else { return };
    let run =
        "#!/bin/sh\nexec redis-server redis.conf --port $PORT --bind 127.0.0.1 --dir $STATE_DIRECTORY\n";
    host.write("/srv/cache/run", run, 0o755);
    host.write("/srv/cache/redis.conf", "save \"\"\n# one\n", 0o644);
    let text = "listen = 6380\nrelease_dir = \"/srv/cache\"\nrelease_bin = \"run\"\n\
        [health]\ncommand = \"/usr/bin/redis-cli -p {port} ping\"\n\
        [switch]\ndrain = \"30s\"\n[release]\nsettle = \"200ms\"\n";
    apps::register(&host, "cache", text).success();
    host.write("/home/pipeline.py", PIPELINE, 0o644);
    host.write("/srv/cache/redis.conf", "save \"\"\n# two\n", 0o644);
    apps::await_status(&host, "cache", "/state", "ready to switch");
    let old_run = host.sh("redis-cli -p 6380 info server | grep run_id");

    let client = host.spawn("python3 /home/pipeline.py");
    client.wait_for("connected", apps::SOON);
    let switched = host.run("dorc switch cache");

    assert!(switched.success().contains("blue"), "{switched}");
    assert!(client.wait().success().contains("answered"));
    // It went to the other one for new connections while the old one had its own.
    assert_ne!(host.sh("redis-cli -p 6380 info server | grep run_id"), old_run);
    assert_eq!(host.sh("redis-cli -p 6380 get counter"), "");
    host.sh("dorc rollback cache");
    assert_eq!(host.sh("redis-cli -p 6380 info server | grep run_id"), old_run);
    assert_ne!(host.sh("redis-cli -p 6380 get counter"), "");
}
