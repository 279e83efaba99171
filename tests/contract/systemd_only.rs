//! What only systemd does: units, users, the sandbox. Runs inside a test host.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says when it is skipped")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dorc::model::app::Sandbox;
use dorc::model::colour::Colour;
use dorc::services::systemd::Systemd;
use dorc::services::unit::Places;
use dorc::services::{ServiceError, Services};
use futures_util::future::join_all;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::services_cases::{Fixture, eventually, kill, next, running, says};
use crate::systemd::bed;

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The answer to a plain HTTP request, or to whatever `request` is.
async fn answer(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

async fn free_port() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Runs `script` in the default sandbox and asks it `request` at its port; skipped where `program` is not installed.
async fn runs_sandboxed(app: &str, program: &str, script: &str, request: &str, expected: &str) {
    let Some(bed) = bed().await else { return };
    if !Path::new(program).exists() {
        // Past the test harness, which swallows what a test that passes prints.
        let _best_effort = writeln!(std::io::stderr(), "skipped: {app}: {program} is not installed");
        return;
    }
    let port = free_port().await;
    let mut service = Fixture::new(app, bed.root()).shell(1, script);
    service.env.insert("PORT".into(), port.to_string());
    bed.services().start(&service).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match answer(port, request).await {
            Some(said) if said.starts_with(expected) => break,
            other if tokio::time::Instant::now() > deadline => {
                panic!("{other:?}\n{}", bed.services().last_lines(&service.id, 30).await.join("\n"))
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    assert_eq!(running(bed.services(), &service.id).await.restarts, 0);
    assert!(bed.services().listening_ports(&service.id).await.contains(&port));
    bed.services().remove(&service.id).await.unwrap();
}

const GET: &str = "GET / HTTP/1.0\r\n\r\n";

#[tokio::test]
async fn python_runs_sandboxed() {
    runs_sandboxed(
        "box-python",
        "/usr/bin/python3",
        "exec /usr/bin/python3 -m http.server $PORT",
        GET,
        "HTTP/1.0 200",
    )
    .await;
}

#[tokio::test]
async fn node_runs_sandboxed() {
    let script = "exec /usr/bin/node -e 'os = require(\"os\"); require(\"http\").createServer((q, a) => \
                  a.end(JSON.stringify(os.networkInterfaces()) + os.cpus().length)).listen(process.env.PORT)'";
    runs_sandboxed("box-node", "/usr/bin/node", script, GET, "HTTP/1.1 200").await;
}

#[tokio::test]
async fn redis_runs_sandboxed() {
    let script = "cd $STATE_DIRECTORY && exec /usr/bin/redis-server --port $PORT --appendonly yes";
    runs_sandboxed("box-redis", "/usr/bin/redis-server", script, "SET a b\r\n", "+OK").await;
}

#[tokio::test]
async fn caddy_runs_sandboxed() {
    let script = "exec /usr/bin/caddy file-server --listen :$PORT --root / --browse";
    runs_sandboxed("box-caddy", "/usr/bin/caddy", script, GET, "HTTP/1.0 200").await;
}

const JAVA: &str = "
import com.sun.net.httpserver.*;
public class Main {
    public static void main(String[] words) throws Exception {
        int port = Integer.parseInt(System.getenv(\"PORT\"));
        var server = HttpServer.create(new java.net.InetSocketAddress(\"127.0.0.1\", port), 0);
        server.createContext(\"/\", exchange -> { exchange.sendResponseHeaders(200, -1); exchange.close(); });
        server.start();
    }
}";

#[tokio::test]
async fn java_runs_sandboxed() {
    let script = format!(
        "cat > $STATE_DIRECTORY/Main.java <<'END'\n{JAVA}\nEND\nexec java $STATE_DIRECTORY/Main.java"
    );
    runs_sandboxed("box-java", "/usr/bin/javac", &script, GET, "HTTP/1.1 200").await;
}

#[tokio::test]
async fn a_service_sees_its_own_release_and_state_only() {
    let Some(bed) = bed().await else { return };
    let other = Fixture::new("box-other", bed.root()).sleeper(1);
    let fixture = Fixture::new("box-sight", bed.root());
    let script = format!(
        "cat $0 >/dev/null && echo own; ls {}; ls {}/apps; cat /home/secret; ls /home | wc -l; touch $0 $PWD/x
        echo data > $STATE_DIRECTORY/file && cat $STATE_DIRECTORY/file; echo $STATE_DIRECTORY $HOME $GODEBUG; id -un
        echo end; exec sleep 1000",
        other.dir.display(),
        bed.root().display(),
    );
    let service = fixture.shell(1, &script);
    fs::write("/home/secret", "secret").unwrap();
    bed.services().start(&service).await.unwrap();
    says(bed.services(), &service.id, "end").await;
    let said = bed.services().last_lines(&service.id, 50).await.join("\n");
    for expected in
        ["own\n", "data\n", "/var/lib/box-sight /var/lib/box-sight multipathtcp=0\n", "dorc-box-sight\n"]
    {
        assert!(said.contains(expected), "{expected:?} in\n{said}");
    }
    assert!(said.contains("\nbox-sight\n"), "of the apps it sees itself:\n{said}");
    assert!(!said.contains("box-other\n") && !said.contains("secret\n"), "{said}");
    assert!(said.contains("/x': Read-only file system"), "{said}");

    let mut visitor = service.clone();
    visitor.id.colour = visitor.id.colour.other();
    bed.services().start(&visitor).await.unwrap();
    let owner = fs::metadata("/var/lib/private/box-sight").unwrap().uid();
    for id in [&service.id, &visitor.id] {
        let pid = running(bed.services(), id).await.main_pid.unwrap();
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), owner, "both colours are one user");
        bed.services().remove(id).await.unwrap();
    }
    bed.services().purge_state(&service.id.app).await.unwrap();
    assert!(!Path::new("/var/lib/private/box-sight").exists() && !Path::new("/var/lib/box-sight").exists());
}

#[tokio::test]
async fn a_working_directory_of_its_own_may_be_written() {
    let Some(bed) = bed().await else { return };
    let mut service =
        Fixture::new("box-work", bed.root()).shell(1, "touch here && echo written; pwd; exec sleep 1000");
    service.working_dir = "/home/box work%/dir".into();
    service.user = Some("daemon".into());
    fs::create_dir_all(&service.working_dir).unwrap();
    fs::set_permissions(&service.working_dir, fs::Permissions::from_mode(0o777)).unwrap();
    bed.services().start(&service).await.unwrap();
    says(bed.services(), &service.id, "/home/box work%/dir").await;
    assert!(bed.services().last_lines(&service.id, 5).await.contains(&"written".to_owned()));
    bed.services().remove(&service.id).await.unwrap();
}

#[tokio::test]
async fn a_working_directory_is_handed_to_the_dynamic_user() {
    let Some(bed) = bed().await else { return };
    let mut service =
        Fixture::new("box-hand", bed.root()).shell(1, "date > here && echo written; exec sleep 1000");
    service.working_dir = "/srv/box-hand/work".into();
    for colour in Colour::BOTH {
        service.id.colour = colour;
        bed.services().start(&service).await.unwrap();
        says(bed.services(), &service.id, "written").await;
    }
    let owner = fs::metadata("/srv/box-hand/work").unwrap().uid();
    assert_eq!(fs::metadata("/var/lib/box-hand").unwrap().uid(), owner);
    assert_eq!(fs::metadata("/srv/box-hand").unwrap().uid(), 0);
    for colour in Colour::BOTH {
        service.id.colour = colour;
        bed.services().remove(&service.id).await.unwrap();
    }
    bed.services().purge_state(&service.id.app).await.unwrap();
}

#[tokio::test]
async fn an_absent_environment_file_is_named() {
    let Some(bed) = bed().await else { return };
    let mut service = Fixture::new("unit-no-env", bed.root()).sleeper(1);
    service.env_file = Some("/etc/absent.env".into());
    let refusal = bed.services().start(&service).await.unwrap_err();
    assert!(
        matches!(&refusal, ServiceError::Unsupported(text) if text.contains("/etc/absent.env")),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn without_the_sandbox_it_runs_as_the_user_and_that_is_all() {
    let Some(bed) = bed().await else { return };
    let mut service = Fixture::new("box-off", bed.root()).shell(1, "id -un; ls -d /home/*; exec sleep 1000");
    service.sandbox = Sandbox::Off;
    service.user = Some("root".into());
    fs::write("/home/secret", "secret").unwrap();
    bed.services().start(&service).await.unwrap();
    says(bed.services(), &service.id, "/home/secret").await;

    service.user = None;
    bed.services().start(&service).await.unwrap();
    says(bed.services(), &service.id, "dorc-box-off").await;
    bed.services().remove(&service.id).await.unwrap();
    bed.services().purge_state(&service.id.app).await.unwrap();
}

#[tokio::test]
async fn a_service_has_a_control_group_while_it_runs() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-group", bed.root()).sleeper(1);
    assert_eq!(bed.services().control_group(&service.id).await, None);
    bed.services().start(&service).await.unwrap();
    let group = bed.services().control_group(&service.id).await.unwrap();
    let main_pid = running(bed.services(), &service.id).await.main_pid.unwrap();
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), format!("{main_pid}\n"));
    assert!(group.join("cgroup.controllers").exists(), "{} is of cgroup2", group.display());
    bed.services().stop(&service.id).await.unwrap();
    assert_eq!(bed.services().control_group(&service.id).await, None);
    bed.services().remove(&service.id).await.unwrap();
}

#[tokio::test]
async fn hundreds_may_ask_at_once() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-asked", bed.root()).sleeper(1);
    bed.services().start(&service).await.unwrap();
    let answers = join_all((0..1000).map(|_| bed.services().running(&service.id))).await;
    let wrong: Vec<_> = answers.iter().filter(|answer| !matches!(answer, Ok(Some(_)))).collect();
    assert!(wrong.is_empty(), "{} of 1000: {:?}", wrong.len(), wrong[0]);
    bed.services().remove(&service.id).await.unwrap();
}

#[tokio::test]
async fn start_enables_and_stop_disables() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-boot", bed.root()).sleeper(1);
    bed.services().start(&service).await.unwrap();
    assert_eq!(systemctl(&["is-enabled", "green-unit-boot"]), "enabled");
    let env = fs::metadata(Places::default().env_file(&service.id)).unwrap();
    assert_eq!((env.permissions().mode() & 0o777, env.uid()), (0o600, 0));
    bed.services().end(&service.id).await.unwrap();
    assert_eq!(systemctl(&["is-enabled", "green-unit-boot"]), "enabled");
    bed.services().stop(&service.id).await.unwrap();
    assert_eq!(systemctl(&["is-enabled", "green-unit-boot"]), "disabled");
    bed.services().remove(&service.id).await.unwrap();
    assert_eq!(systemctl(&["list-units", "--all", "--plain", "--no-legend", "*unit-boot*"]), "");
    assert!(!Places::default().env_file(&service.id).exists());
}

#[tokio::test]
async fn what_others_stop_is_no_exit() {
    let Some(bed) = bed().await else { return };
    let fixture = Fixture::new("unit-others", bed.root());
    let service = fixture.sleeper(1);
    let mut exits = bed.services().exits(&service.id.app);
    bed.services().start(&service).await.unwrap();
    systemctl(&["restart", "green-unit-others"]);
    systemctl(&["stop", "green-unit-others"]);
    assert_eq!(bed.services().running(&service.id).await.unwrap(), None);
    systemctl(&["start", "green-unit-others"]);
    kill(running(bed.services(), &service.id).await.main_pid.unwrap());
    assert_eq!(next(&mut exits).await.exit.how, "killed by SIGKILL");
    bed.services().remove(&service.id).await.unwrap();
    assert!(exits.try_recv().is_err());
}

#[tokio::test]
async fn a_drop_in_is_the_users_word() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-drop-in", bed.root()).shell(1, "ls -d /home/*; exec sleep 1000");
    let dir = Path::new("/etc/systemd/system/green-unit-drop-in.service.d");
    fs::create_dir_all(dir).unwrap();
    fs::write("/home/secret", "secret").unwrap();
    fs::write(dir.join("mine.conf"), "[Service]\nUser=root\nDynamicUser=no\nProtectHome=no\n").unwrap();
    bed.services().start(&service).await.unwrap();
    says(bed.services(), &service.id, "/home/secret").await;

    fs::write(dir.join("mine.conf"), "[Service]\nExecStart=\nExecStart=/bin/sleep 1\n").unwrap();
    let refusal = bed.services().start(&service).await.unwrap_err().to_string();
    assert!(refusal.contains("mine.conf") && refusal.contains("it would run"), "{refusal}");
    assert_eq!(bed.services().running(&service.id).await.unwrap(), None);
    fs::remove_dir_all(dir).unwrap();
    bed.services().remove(&service.id).await.unwrap();
    bed.services().purge_state(&service.id.app).await.unwrap();
}

#[tokio::test]
async fn a_unit_that_somebody_else_wrote_is_kept_aside() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-taken", bed.root()).sleeper(1);
    let file = Places::default().unit_file(&service.id);
    let theirs = "[Service]\nExecStart=/bin/sleep 1000\n";
    fs::write(&file, theirs).unwrap();
    bed.services().remove(&service.id).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), theirs);
    bed.services().start(&service).await.unwrap();
    let aside = file.with_extension("service.before-dorc");
    assert_eq!(fs::read_to_string(&aside).unwrap(), theirs);
    bed.services().remove(&service.id).await.unwrap();
    fs::remove_file(aside).unwrap();
}

const TELLER: &str = "#!/usr/bin/python3
import json, os, sys, time
told = {'words': sys.argv[1:], 'env': {k: v for k, v in os.environ.items() if k.startswith('RANDOM_')}}
with open(os.environ['STATE_DIRECTORY'] + '/new', 'w') as file:
    json.dump(told, file)
os.rename(file.name, os.environ['STATE_DIRECTORY'] + '/told')
time.sleep(1000)
";

/// What systemd makes of it decides, not what we think that it would.
#[tokio::test]
async fn random_words_and_values_arrive_as_they_are() {
    let Some(bed) = bed().await else { return };
    let mut service = Fixture::new("unit-random", bed.root()).service(1, TELLER);
    let mut runner = TestRunner::deterministic();
    let mut random = |pattern: &str| {
        proptest::string::string_regex(pattern).unwrap().new_tree(&mut runner).unwrap().current()
    };
    for number in 0..300 {
        service.start.push(random("[%$\"'\\\\ ;#{}nHx@:=-]{0,9}|[^\\p{C}]{0,12}"));
        service.env.insert(format!("RANDOM_{number}"), random("[%$\"'\\\\ `\n\t;#=nx]{0,9}|[^\\p{C}]{0,12}"));
    }
    bed.services().start(&service).await.unwrap();
    let told = eventually("what arrived", || async { fs::read("/var/lib/unit-random/told").ok() }).await;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    for (number, word) in service.start[1..].iter().enumerate() {
        assert_eq!(told["words"][number].as_str().unwrap(), word, "word {number}");
    }
    for (name, value) in service.env.iter().filter(|(name, _)| name.starts_with("RANDOM_")) {
        assert_eq!(told["env"][name].as_str().unwrap(), value, "{name}");
    }
    bed.services().remove(&service.id).await.unwrap();
    bed.services().purge_state(&service.id.app).await.unwrap();
}

#[tokio::test]
async fn the_data_of_others_is_not_taken() {
    let Some(bed) = bed().await else { return };
    fs::create_dir_all("/var/lib/unit-foreign").unwrap();
    let service = Fixture::new("unit-foreign", bed.root()).sleeper(1);
    let refusal = bed.services().start(&service).await.unwrap_err();
    assert!(matches!(refusal, ServiceError::Unsupported(_)), "{refusal:?}");
    assert_eq!(fs::metadata("/var/lib/unit-foreign").unwrap().uid(), 0);
    assert!(!Places::default().unit_file(&service.id).exists());
}

#[tokio::test]
async fn an_end_while_the_bus_was_away_is_told_when_it_is_back() {
    let Some(bed) = bed().await else { return };
    let service = Fixture::new("unit-bus", bed.root()).sleeper(1);
    let mut exits = bed.services().exits(&service.id.app);
    bed.services().start(&service).await.unwrap();
    let first = running(bed.services(), &service.id).await.main_pid.unwrap();
    // Such an end is found by comparison only once the first state is known.
    kill(first);
    assert_eq!(next(&mut exits).await.exit.how, "killed by SIGKILL");
    let main_pid = || async {
        let pid: u32 =
            systemctl(&["show", "--property=MainPID", "--value", "green-unit-bus"]).parse().unwrap();
        (pid != 0).then_some(pid)
    };
    let second = eventually("the second process", main_pid).await;

    systemctl(&["stop", "dbus.socket", "dbus.service"]);
    kill(second);
    eventually("the third process", || async { main_pid().await.filter(|pid| *pid != second) }).await;
    systemctl(&["start", "dbus.socket", "dbus.service"]);
    let exited = next(&mut exits).await;
    assert!(exited.exit.how.contains("started it again"), "{exited:?}");
    // Without the bus a start may fail for want of a user, and be tried again.
    assert!(running(bed.services(), &service.id).await.restarts >= 2);

    let third = running(bed.services(), &service.id).await.main_pid.unwrap();
    kill(third);
    assert_eq!(next(&mut exits).await.exit.how, "killed by SIGKILL", "signals are followed again");
    bed.services().remove(&service.id).await.unwrap();
}

#[tokio::test]
async fn units_of_no_app_are_installed_and_uninstalled() {
    let Some(bed) = bed().await else { return };
    let systemd: &Systemd = bed.services();
    let unit = include_str!("../../dist/etc/systemd/system/dorc.service");
    // A notifying stand-in; all else is as it will be installed.
    let stand_in = "/usr/bin/python3 -c 'import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                    a = os.environ[\"NOTIFY_SOCKET\"]; s.sendto(b\"READY=1\", a); time.sleep(1000)'";
    let unit = unit.replace("/usr/local/bin/dorc daemon", stand_in);
    assert!(systemd.install_unit("unit-dorc.service", &unit).await.unwrap());
    assert!(!systemd.install_unit("unit-dorc.service", &unit).await.unwrap(), "nothing changed");
    systemd.start_unit("unit-dorc.service").await.unwrap();
    systemd.start_unit("unit-dorc.service").await.unwrap();
    assert!(systemd.is_unit_active("unit-dorc.service").await.unwrap());
    assert_eq!(systemctl(&["is-enabled", "unit-dorc"]), "enabled");
    assert!(systemd.uninstall_unit("unit-dorc.service").await.unwrap());
    assert!(!systemd.uninstall_unit("unit-dorc.service").await.unwrap());
    assert!(!systemd.is_unit_active("unit-dorc.service").await.unwrap());

    let broken = unit.replace(stand_in, "/bin/false");
    systemd.install_unit("unit-dorc.service", &broken).await.unwrap();
    let failure = systemd.start_unit("unit-dorc.service").await.unwrap_err();
    assert!(
        matches!(&failure, ServiceError::Failed(exit) if exit.how.contains("exit status 1")),
        "{failure:?}"
    );
    systemd.uninstall_unit("unit-dorc.service").await.unwrap();
}
