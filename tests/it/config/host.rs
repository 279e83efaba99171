//! What stands against an app on this host, and among its other apps.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use dorc::config::{self, Host, Problem, Severity};
use dorc::model::app::{App, AppName, ReleaseBin};
use dorc::model::colour::ByColour;
use tempfile::TempDir;

fn app(name: &str, listen: &[&str]) -> App {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    let dir = format!("/srv/upload/{name}").into();
    config::new_app(AppName::new(name).unwrap(), listen, dir, ReleaseBin::Inside("web".into()))
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn apps_do_not_take_each_others_addresses() {
    let web = app("web", &["127.0.0.1:80"]);
    let mut api = app("api", &["0.0.0.0:80"]);
    api.service.ports = Some(ByColour { blue: 8081, green: 8082 });
    let problem = "listen: 127.0.0.1:80 takes the same connections as 0.0.0.0:80 of the app api; \
                   choose another port, or an address that no other app has";
    assert_eq!(told(&config::conflicts(&web, std::slice::from_ref(&api))), [problem]);

    let on_a_service = app("front", &["[::]:8082"]);
    let problem = "listen: [::]:8082 takes the same connections as 127.0.0.1:8082 of the service green-api; \
                   choose another port, or an address that no other app has";
    assert_eq!(told(&config::conflicts(&on_a_service, std::slice::from_ref(&api))), [problem]);

    let mut same_ports = app("shop", &["127.0.0.1:81"]);
    same_ports.service.ports = Some(ByColour { blue: 8082, green: 80 });
    let problems = told(&config::conflicts(&same_ports, &[web.clone(), api.clone()]));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].starts_with("service.ports: 127.0.0.1:80 is taken by the app web"));
    assert!(problems[1].starts_with("service.ports: 127.0.0.1:80 takes the same connections as 0.0.0.0:80"));
    assert!(problems[2].starts_with("service.ports: 127.0.0.1:8082 is taken by the service green-api"));
}

#[test]
fn an_app_is_no_conflict_with_itself_or_with_strangers() {
    let web = app("web", &["127.0.0.1:80"]);
    let mut changed = web.clone();
    changed.listen.push("[::1]:80".parse().unwrap());
    assert_eq!(config::conflicts(&changed, std::slice::from_ref(&web)), []);
    assert_eq!(config::conflicts(&web, &[app("api", &["192.0.2.1:80", "127.0.0.1:81"])]), []);
}

#[test]
fn two_apps_in_one_folder_are_told() {
    let web = app("web", &["127.0.0.1:80"]);
    let mut other = app("other", &["127.0.0.1:81"]);
    other.release_dir = web.release_dir.join("sub");
    let problems = config::conflicts(&other, std::slice::from_ref(&web));
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].key.as_str(), problems[0].severity), ("release_dir", Severity::Warning));
}

/// A host of a temporary folder, with one user, and an app that it has nothing against.
fn host() -> (TempDir, App) {
    let root = tempfile::tempdir().unwrap();
    for dir in ["etc", "var/lib/private", "upload"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nci:x:4711:4711::/:/bin/sh\n").unwrap();
    let mut app = app("web", &[]);
    app.release_dir = root.path().join("upload");
    assert_eq!(found(&app, root.path()), Vec::<String>::new());
    (root, app)
}

fn found(app: &App, root: &Path) -> Vec<String> {
    told(&config::host_problems(app, &Host { root, held: &[] }))
}

/// The one problem of `app`, which says `what`.
#[track_caller]
fn only(app: &App, root: &Path, what: &str) {
    let problems = found(app, root);
    assert!(problems.len() == 1 && problems[0].contains(what), "wanted {what:?}, found {problems:#?}");
}

#[test]
fn a_release_directory_has_to_be_there() {
    let (root, mut app) = host();
    fs::set_permissions(&app.release_dir, Permissions::from_mode(0o777)).unwrap();
    only(&app, root.path(), "warning: release_dir: everybody on this host may write");
    app.release_dir = root.path().join("etc/passwd");
    only(&app, root.path(), "is not a directory");
    app.release_dir = root.path().join("gone");
    only(&app, root.path(), "does not exist; make it: mkdir -p ");
}

#[test]
fn an_environment_file_has_to_be_there_and_private() {
    let (root, mut app) = host();
    let file = root.path().join("web.env");
    app.service.env_file = Some(file.clone());
    only(&app, root.path(), "service.env_file");
    fs::write(&file, "A=1\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    only(&app, root.path(), "may read");
    fs::set_permissions(&file, Permissions::from_mode(0o606)).unwrap();
    only(&app, root.path(), "may write");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(found(&app, root.path()), Vec::<String>::new());
}

#[test]
fn the_users_have_to_exist() {
    let (root, mut app) = host();
    app.deployers = vec!["ci".to_owned(), "nobody-here".to_owned()];
    only(&app, root.path(), "deployers: there is no user nobody-here on this host");
    app.deployers.clear();
    app.service.user = Some("ghost".to_owned());
    only(&app, root.path(), "service.user: there is no user ghost on this host");
}

#[test]
fn a_directory_of_somebody_elses_is_not_taken_over() {
    let (root, mut app) = host();
    let dir = root.path().join("var/lib/web");
    symlink("private/web", &dir).unwrap();
    assert_eq!(found(&app, root.path()), Vec::<String>::new(), "a dynamic user's own directory");
    fs::remove_file(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    only(&app, root.path(), "systemd would hand all of it to this app");
    app.service.user = Some("ci".to_owned());
    if rustix::process::getuid().is_root() {
        only(&app, root.path(), "systemd would hand all of it to this app");
        chown(&dir, Some(4711), None).unwrap();
        assert_eq!(found(&app, root.path()), Vec::<String>::new(), "it belongs to the user already");
    }
}

#[test]
fn another_programs_address_is_seen_and_dorcs_own_is_not_held_against_it() {
    let (root, mut app) = host();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    app.listen = vec![address];
    only(&app, root.path(), &format!("listen: another program listens on {address}"));
    app.listen = vec![SocketAddr::from(([0, 0, 0, 0], address.port()))];
    only(&app, root.path(), "another program listens on 0.0.0.0");
    let held = Host { root: root.path(), held: &[address] };
    assert_eq!(config::host_problems(&app, &held), []);
    drop(other);
    assert_eq!(found(&app, root.path()), Vec::<String>::new(), "the port is free again at once");
    app.listen = vec!["192.0.2.99:80".parse().unwrap()];
    only(&app, root.path(), "this host does not have the address 192.0.2.99");
}
