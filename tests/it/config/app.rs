//! What right app files mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dorc::config::{self, Severity};
use dorc::model::app::{
    App, AppName, Check, Credential, HealthConfig, PlaneChoice, Promote, ReleaseBin, ReleaseConfig, Sandbox,
    ServiceConfig, SwitchConfig,
};
use dorc::model::colour::{ByColour, Colour};
use dorc::model::hooks::{Hook, Hooks};
use dorc::model::proxy_protocol::ProxyProtocol;
use dorc::model::share::{Share, Step};

use super::fixtures::valid;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn both(of: &[&str]) -> ByColour<Vec<String>> {
    ByColour::from_fn(|_| words(of))
}

fn dirs(blue: &str, green: &str) -> Option<ByColour<PathBuf>> {
    Some(ByColour { blue: blue.into(), green: green.into() })
}

#[test]
fn three_keys_are_enough() {
    let loaded = valid("smallest");
    let name = AppName::new("smallest").unwrap();
    let listen = vec!["127.0.0.1:80".parse().unwrap()];
    let bin = ReleaseBin::Inside("web".into());
    assert_eq!(loaded.app, config::new_app(name, listen, "/srv/upload/web".into(), bin));
    assert_eq!(loaded.app.service.start, both(&["{bin}", "--port", "{port}"]));
    assert_eq!(loaded.app.health.check, Check::Port { up_for: Duration::from_secs(1) });
    assert_eq!(loaded.active, None);
    assert_eq!(loaded.notes, []);
}

fn every_hook() -> Hooks {
    Hooks {
        commands: [
            (Hook::Prepare, vec!["{bin}", "migrate", "--all now"]),
            (Hook::Verify, vec!["/usr/bin/curl", "--fail", "http://127.0.0.1:{port}/smoke"]),
            (Hook::Switched, vec!["{bin}", "announce"]),
            (Hook::Bake, vec!["{bin}", "watch"]),
            (Hook::Failed, vec!["/bin/sh", "-c", "echo $DORC_REASON"]),
        ]
        .map(|(hook, command)| (hook, words(&command)))
        .into(),
        deadline: Duration::from_secs(30),
    }
}

#[test]
fn every_key_arrives() {
    let expected = App {
        name: AppName::new("everything").unwrap(),
        listen: ["0.0.0.0:80", "[::1]:80", "127.0.0.1:8000"].map(|address| address.parse().unwrap()).to_vec(),
        plane: PlaneChoice::Tcp,
        release_dir: "/srv/upload/web".into(),
        release_bin: ReleaseBin::Inside("bin/web".into()),
        deployers: words(&["ci", "dev"]),
        service: ServiceConfig {
            start: both(&[
                "{bin}",
                "--listen",
                "127.0.0.1:{port}",
                "--as",
                "{colour} one",
                "--json",
                r#"{"a": {}}"#,
            ]),
            reload: Some(both(&["/usr/bin/env", "{bin}", "reload"])),
            stop: None,
            ports: Some(ByColour { blue: 8081, green: 8082 }),
            env: [("RUST_LOG", "info"), ("EMPTY", ""), ("PERCENT", "100% $HOME")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            env_file: Some("/etc/dorc/web.env".into()),
            credentials: [("db-password", "/etc/dorc/db", false), ("tls.key", "/etc/credstore/tls", true)]
                .map(|(name, path, encrypted)| (name.to_owned(), Credential { path: path.into(), encrypted }))
                .into(),
            user: Some("www-data".to_owned()),
            working_dir: dirs("/srv/www/blue-web", "/srv/www/green-web"),
            memory_max: Some("512M".to_owned()),
            proxy_protocol: Some(ProxyProtocol::V2),
            sandbox: Sandbox::Off,
            notify: true,
        },
        health: HealthConfig {
            check: Check::Http { path: "/healthz?deep=1".to_owned(), host: "www.example.org:80".to_owned() },
            interval: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
            successes: 3,
            deadline: Duration::from_secs(90),
        },
        hooks: every_hook(),
        switch: SwitchConfig {
            promote: Promote::Auto,
            drain: None,
            bake: Duration::ZERO,
            failover: true,
            canary: vec![step(500, 600), step(2500, 3600)],
            hold: Duration::from_secs(5),
        },
        release: ReleaseConfig {
            keep: 9,
            settle: Duration::from_secs(2),
            signed_by: words(&["RWRH9WM3RWHN3vn+wfSTU/sCjUBUvTQ4C6SIFdLJikSl4ZTNhdolG5aW"]),
        },
    };
    assert_eq!(valid("everything").app, expected);
}

fn step(parts: u16, seconds: u64) -> Step {
    Step { share: Share::new(parts).unwrap(), time: Duration::from_secs(seconds) }
}

#[test]
fn what_is_empty_is_the_default() {
    let (empty, smallest) = (valid("empty-means-default").app, valid("smallest").app);
    assert_eq!(App { name: smallest.name.clone(), ..empty }, smallest);
}

#[test]
fn other_ways_to_write_the_same_are_read() {
    let loaded = valid("relaxed");
    let app = &loaded.app;
    assert_eq!(app.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(app.release_bin, ReleaseBin::Inside("bin/web".into()));
    assert_eq!(app.plane, PlaneChoice::Kernel);
    assert_eq!(app.service.working_dir, dirs("/srv/www/blue", "/srv/www/green"));
    assert_eq!(app.service.memory_max.as_deref(), Some("536870912"));
    let notes: Vec<_> =
        loaded.notes.iter().map(|note| (note.line, note.key.as_str(), note.severity)).collect();
    assert_eq!(
        notes,
        [(Some(5), "service.user", Severity::Warning), (Some(8), "health.host", Severity::Warning)]
    );
    assert_eq!(valid("outside-binary").app.release_bin, ReleaseBin::Outside("/opt/build/web".into()));
    assert_eq!(valid("command-health").app.service.start.blue[1..], ["-c", "exec {bin} $PORT"]);
    let curl = words(&["/usr/bin/curl", "-fs", "http://127.0.0.1:{port}/"]);
    assert_eq!(valid("command-health").app.health.check, Check::Command(curl));
}

#[test]
fn what_the_first_dorc_registered_goes_on_as_it_was() {
    let loaded = valid("dwbrite.com");
    let app = &loaded.app;
    assert_eq!(loaded.active, Some(Colour::Green));
    assert_eq!(app.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(app.release_bin, ReleaseBin::Inside("dwbrite-com".into()));
    assert_eq!(app.service.start, both(&["{bin}", "-p", "{port}"]));
    assert_eq!((&app.service.reload, &app.service.stop), (&None, &None));
    assert_eq!(app.service.ports, Some(ByColour { blue: 8081, green: 8082 }));
    let data = "/etc/dorc/service-data";
    let expected = dirs(&format!("{data}/blue-dwbrite.com"), &format!("{data}/green-dwbrite.com"));
    assert_eq!(app.service.working_dir, expected);
    assert_eq!((app.service.user.as_deref(), app.service.sandbox), (Some("root"), Sandbox::Off));
    assert_eq!(loaded.notes.len(), 1, "{:?}", loaded.notes);
}

#[test]
fn the_first_dorcs_own_commands_are_kept() {
    let api = valid("api");
    assert_eq!(api.active, Some(Colour::Blue));
    assert_eq!(api.app.service.ports, Some(ByColour { blue: 9001, green: 9002 }));
    assert_eq!(
        api.app.service.start,
        both(&["{bin}", "--bind=127.0.0.1:{port}", "--config", "/etc/api config.toml"])
    );
    assert_eq!(
        (&api.app.service.reload, &api.app.service.stop),
        (&None, &None),
        "they were SIGHUP and SIGTERM"
    );
    assert_eq!(api.app.release_bin, ReleaseBin::Outside("/home/ci/build/api-server".into()));

    let service = valid("shop").app.service;
    assert!(Path::new(&service.start.blue[0]).is_absolute(), "{:?}", service.start);
    assert_eq!(service.start.blue[1..], ["-c", "exec ./run 3001"]);
    assert_eq!(service.start.green[1..], ["-c", "exec ./run 3002"]);
    let of = |what: &str| {
        let command = |colour: Colour| words(&[&format!("/usr/local/bin/shop-{what}"), colour.name()]);
        Some(ByColour::from_fn(command))
    };
    assert_eq!((service.reload, service.stop), (of("reload"), of("stop")));
}

#[test]
fn relative_paths_are_taken_from_the_base() {
    let text =
        "listen = 80\nrelease_dir = \"./upload\"\nrelease_bin = \"web\"\n[service]\nenv_file = \"web.env\"\n";
    let name = AppName::new("web").unwrap();
    let app = config::read(&name, text, Some(Path::new("/home/me/try"))).unwrap().app;
    assert_eq!(app.release_dir, Path::new("/home/me/try/upload"));
    assert_eq!(app.service.env_file.as_deref(), Some(Path::new("/home/me/try/web.env")));
    assert_eq!(config::parse(&name, text).unwrap_err().len(), 2);
}

#[test]
fn an_app_is_called_as_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let long = "a".repeat(200);
    let wrong = [
        ("Web.toml", "lower-case"),
        ("9web.toml", "lower-case"),
        (".toml", "needs a name"),
        ("web.yaml", "ends in .toml"),
        ("a..b.toml", "'..'"),
        ("web%.toml", "'%'"),
        ("web\n.toml", "'\\n'"),
        ("web space.toml", "' '"),
        ("web-.toml", "does not end in"),
        ("private.toml", "reserved"),
        ("dorc.toml", "reserved"),
        (&format!("{long}.toml"), "at most 32 characters"),
    ];
    for (file, said) in wrong {
        let path = dir.path().join(file);
        fs::write(&path, "").unwrap();
        let problems = config::load(&path, None).unwrap_err();
        assert_eq!(problems.len(), 1, "{file:?}: {problems:?}");
        assert!(problems[0].message.contains(said), "{file:?}: {}", problems[0].message);
        assert_eq!(problems[0].file.as_deref(), Some(path.as_path()));
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let said = |name: &str| config::load(&dir.path().join(name), None).unwrap_err()[0].message.clone();
    assert!(said("gone.toml").contains("can't be read"));
    fs::create_dir(dir.path().join("folder.toml")).unwrap();
    assert!(said("folder.toml").contains("not a regular file"));
    fs::write(dir.path().join("huge.toml"), vec![b'#'; config::MAX_FILE + 1]).unwrap();
    assert!(said("huge.toml").contains("has 1048577 bytes"));
}

#[test]
fn a_problem_reads_as_a_compilers_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.toml");
    fs::write(&path, "# mine\n\nlisten = 70000\nrelease_dir = \"/srv/web\"\nrelease_bin = \"web\"\n")
        .unwrap();
    let problems = config::load(&path, None).unwrap_err();
    let expected =
        format!("{}:3: listen: port 70000 is out of range; ports go from 1 to 65535", path.display());
    assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}
