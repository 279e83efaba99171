//! What every supervisor has to do, as cases over the seam: the embedded one and systemd run the same.
//!
//! A case takes the supervisor and a folder below which releases may be put. Every case has an app of its own, so that
//! they can run side by side. `services_contract!` makes one test of each.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says when it is skipped")]

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dorc::model::app::{AppName, Credential, Sandbox, Service, ServiceId};
use dorc::model::colour::Colour;
use dorc::model::hooks::Hook;
use dorc::model::release::{Digest, ReleaseId};
use dorc::services::{Exited, Finished, Running, ServiceError, Services};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Nothing in a case takes longer than this unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a test of each case. `$bed` is an async fn without arguments. What it returns has `services()`, the
/// supervisor, and `root()`, the folder for releases, and cleans up when it is dropped; `None`: it said why it can't be.
#[macro_export]
macro_rules! services_contract {
    ($bed:path) => {
        $crate::services_contract!($bed:
            says_what_runs, fails_where_nothing_can_be_executed, restarts_after_a_crash, tells_exit_statuses,
            tells_a_clean_exit_too, starting_again_replaces, an_end_makes_room, stop_ends_all_of_it, a_told_end_is_not_an_exit,
            stop_and_remove_of_nothing, remove_forgets_it, reload_runs_the_command, reload_sends_sighup_where_handled,
            reload_refuses_where_sighup_would_kill, arguments_arrive_as_they_are, the_environment_arrives_as_it_is,
            the_environment_file_is_read, credentials_are_files_of_their_names, last_lines_are_of_the_last_start, finds_listening_ports,
            notify_waits_until_it_is_ready, notify_that_never_gets_ready_fails,
            a_hook_runs_beside_the_service_and_tells_its_end, a_hook_that_takes_too_long_is_ended
        );
    };
    ($bed:path: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let Some(bed) = $bed().await else { return };
                $crate::services_cases::$case(bed.services(), bed.root()).await;
            }
        )+
    };
}

/// An app that exists for one case.
pub struct Fixture {
    app: AppName,
    root: PathBuf,
}

impl Fixture {
    pub fn new(app: &str, root: &Path) -> Self {
        Self { app: AppName::new(app).unwrap(), root: root.to_owned() }
    }

    pub fn id(&self) -> ServiceId {
        ServiceId { app: self.app.clone(), colour: Colour::Green }
    }

    /// A release whose program is `text` (with its `#!` line), as a service.
    pub fn service(&self, number: u32, text: &str) -> Service {
        let release = ReleaseId::new(number, &Digest([7; 32]));
        let dir = self.root.join("apps").join(self.app.as_str()).join("releases").join(release.to_string());
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("program");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Service {
            id: self.id(),
            release,
            working_dir: dir.clone(),
            dir,
            start: vec![program.to_str().unwrap().to_owned()],
            reload: None,
            stop: None,
            env: [("PORT".to_owned(), "8081".to_owned())].into(),
            env_file: None,
            credentials: Default::default(),
            user: None,
            memory_max: None,
            sandbox: Sandbox::Strict,
            notify: false,
            start_timeout: Duration::from_secs(5),
        }
    }

    /// A release that runs a shell script.
    pub fn shell(&self, number: u32, text: &str) -> Service {
        self.service(number, &format!("#!/bin/sh\n{text}\n"))
    }

    /// A release that says `up` and then lives until it is told otherwise.
    pub fn sleeper(&self, number: u32) -> Service {
        self.shell(number, "echo up\nexec sleep 1000")
    }
}

/// Waits for `what` until it is `Some`; for things of the outside world that have no event in the seam.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn says<S: Services>(services: &S, id: &ServiceId, line: &str) {
    eventually(&format!("{id} says {line:?}"), || async {
        services.last_lines(id, 50).await.iter().any(|said| said == line).then_some(())
    })
    .await;
}

pub async fn running<S: Services>(services: &S, id: &ServiceId) -> Running {
    services.running(id).await.unwrap().unwrap_or_else(|| panic!("{id} does not run"))
}

pub async fn next(exits: &mut mpsc::Receiver<Exited>) -> Exited {
    timeout(PATIENCE, exits.recv()).await.expect("an exit is told").expect("the exits go on")
}

fn alive(pid: u32) -> bool {
    // A zombie that its parent has not reaped yet is dead.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub async fn says_what_runs<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-runs", root);
    let service = fixture.sleeper(1);
    assert_eq!(services.running(&service.id).await.unwrap(), None);

    services.start(&service).await.unwrap();
    let it = running(services, &service.id).await;
    assert_eq!((it.release, it.restarts), (Some(service.release), 0));
    assert!(alive(it.main_pid.unwrap()));
    says(services, &service.id, "up").await;

    let other = ServiceId { colour: Colour::Blue, ..service.id.clone() };
    assert_eq!(services.running(&other).await.unwrap(), None, "the other colour is another service");
    services.remove(&service.id).await.unwrap();
}

pub async fn fails_where_nothing_can_be_executed<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-no-exec", root);
    let mut exits = services.exits(&fixture.app);
    let mut service = fixture.sleeper(1);
    service.start = vec![service.dir.join("absent").to_str().unwrap().to_owned()];

    let failure = services.start(&service).await.unwrap_err();
    assert!(matches!(failure, ServiceError::Failed(_)), "{failure:?}");
    assert_eq!(services.running(&service.id).await.unwrap(), None, "nothing tries again");
    assert!(exits.try_recv().is_err(), "the answer of start is the only one");
    services.remove(&service.id).await.unwrap();
}

pub async fn restarts_after_a_crash<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-crash", root);
    let mut exits = services.exits(&fixture.app);
    let service = fixture.sleeper(1);
    services.start(&service).await.unwrap();
    let first = running(services, &service.id).await.main_pid.unwrap();

    kill(first);
    let exited = next(&mut exits).await;
    assert_eq!((&exited.id, exited.exit.how.as_str()), (&service.id, "killed by SIGKILL"));
    let again = eventually("a new process", || async {
        let it = running(services, &service.id).await;
        it.main_pid.filter(|pid| *pid != first).map(|_| it)
    })
    .await;
    assert_eq!((again.restarts, again.release), (1, Some(service.release)));

    services.start(&service).await.unwrap();
    assert_eq!(running(services, &service.id).await.restarts, 0, "counted anew from each start");
    services.remove(&service.id).await.unwrap();
}

pub async fn tells_exit_statuses<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-status", root);
    let mut exits = services.exits(&fixture.app);
    let service = fixture.shell(1, "echo bye\nsleep 0.3\nexit 3");
    services.start(&service).await.unwrap();
    let first = next(&mut exits).await;
    assert_eq!(first.exit.how, "exit status 3");
    let after = first.exit.after.expect("the time it was up");
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&after), "{after:?}");
    assert_eq!(next(&mut exits).await.exit.how, "exit status 3", "each end is told");
    assert!(services.last_lines(&service.id, 1).await.contains(&"bye".to_owned()));
    services.remove(&service.id).await.unwrap();
}

pub async fn tells_a_clean_exit_too<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-clean", root);
    let mut exits = services.exits(&fixture.app);
    let service = fixture.shell(1, "exit 0");
    services.start(&service).await.unwrap();
    assert_eq!(next(&mut exits).await.exit.how, "exit status 0");
    services.remove(&service.id).await.unwrap();
}

pub async fn starting_again_replaces<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-replace", root);
    let (old, new) = (fixture.sleeper(1), fixture.shell(2, "echo new\nexec sleep 1000"));
    services.start(&old).await.unwrap();
    let first = running(services, &old.id).await.main_pid.unwrap();
    services.start(&new).await.unwrap();
    assert!(!alive(first), "the old process is gone before the new one is there");
    assert_eq!(running(services, &new.id).await.release, Some(new.release));
    says(services, &new.id, "new").await;
    services.remove(&new.id).await.unwrap();
}

pub async fn an_end_makes_room<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-end", root);
    let mut exits = services.exits(&fixture.app);
    let (old, new) = (fixture.sleeper(1), fixture.sleeper(2));
    services.end(&old.id).await.unwrap();
    services.start(&old).await.unwrap();
    let main = running(services, &old.id).await.main_pid.unwrap();
    services.end(&old.id).await.unwrap();
    assert_eq!(services.running(&old.id).await.unwrap(), None);
    assert!(!alive(main));
    services.start(&new).await.unwrap();
    assert_eq!(running(services, &new.id).await.release, Some(new.release));
    services.remove(&new.id).await.unwrap();
    assert!(exits.try_recv().is_err());
}

pub async fn stop_ends_all_of_it<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-stop", root);
    let service = fixture.shell(1, "sleep 1000 &\necho child $!\nexec sleep 1000");
    services.start(&service).await.unwrap();
    let main = running(services, &service.id).await.main_pid.unwrap();
    eventually("its child", || async {
        services.last_lines(&service.id, 5).await.iter().any(|line| line.starts_with("child ")).then_some(())
    })
    .await;
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
    let child: u32 = children.trim().parse().unwrap();
    assert!(alive(child));

    services.stop(&service.id).await.unwrap();
    assert_eq!(services.running(&service.id).await.unwrap(), None);
    assert!(!alive(main));
    eventually("the child's end", || async { (!alive(child)).then_some(()) }).await;
    services.remove(&service.id).await.unwrap();
}

pub async fn a_told_end_is_not_an_exit<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-told", root);
    let mut exits = services.exits(&fixture.app);
    let polite = fixture.sleeper(1);
    services.start(&polite).await.unwrap();
    services.stop(&polite.id).await.unwrap();
    services.start(&polite).await.unwrap();

    // The second start replaces the first; the crash after it is then the only end to be told.
    services.start(&fixture.sleeper(2)).await.unwrap();
    kill(running(services, &polite.id).await.main_pid.unwrap());
    assert_eq!(next(&mut exits).await.exit.how, "killed by SIGKILL");
    services.remove(&polite.id).await.unwrap();
    assert!(exits.try_recv().is_err());
}

pub async fn stop_and_remove_of_nothing<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-nothing", root);
    services.stop(&fixture.id()).await.unwrap();
    services.remove(&fixture.id()).await.unwrap();
    assert_eq!(services.listening_ports(&fixture.id()).await, Vec::<u16>::new());
}

pub async fn remove_forgets_it<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-remove", root);
    let service = fixture.sleeper(1);
    services.start(&service).await.unwrap();
    let main = running(services, &service.id).await.main_pid.unwrap();
    services.remove(&service.id).await.unwrap();
    assert!(!alive(main));
    assert_eq!(services.running(&service.id).await.unwrap(), None);
    services.remove(&service.id).await.unwrap();
    services.start(&service).await.unwrap();
    assert_eq!(running(services, &service.id).await.release, Some(service.release));
    services.remove(&service.id).await.unwrap();
}

pub async fn reload_runs_the_command<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-reload", root);
    let mut service = fixture.sleeper(1);
    service.reload = Some(["/bin/sh", "-c", "echo reloaded $0", "x"].map(str::to_owned).into());
    services.start(&service).await.unwrap();
    let before = running(services, &service.id).await.main_pid;
    services.reload(&service).await.unwrap();
    says(services, &service.id, "reloaded x").await;

    assert_eq!(running(services, &service.id).await.main_pid, before);
    services.remove(&service.id).await.unwrap();
}

pub async fn reload_sends_sighup_where_handled<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-hup", root);
    let service = fixture.shell(1, "trap 'echo hup' HUP\necho up\nwhile :; do sleep 0.05; done");
    services.start(&service).await.unwrap();
    says(services, &service.id, "up").await;
    services.reload(&service).await.unwrap();
    says(services, &service.id, "hup").await;
    services.remove(&service.id).await.unwrap();
}

pub async fn reload_refuses_where_sighup_would_kill<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-no-hup", root);
    let service = fixture.sleeper(1);
    services.start(&service).await.unwrap();
    let before = running(services, &service.id).await;
    let refusal = services.reload(&service).await.unwrap_err();
    assert!(matches!(refusal, ServiceError::Unsupported(_)), "{refusal:?}");
    assert_eq!(running(services, &service.id).await, before);
    services.remove(&service.id).await.unwrap();
}

/// Texts that a careless supervisor would expand, split, or drop.
const HOSTILE: [&str; 12] = [
    "$HOME",
    "${PATH}",
    "$$",
    "%n %i %%",
    ";",
    "a b",
    " lead and trail ",
    "\"quoted\" 'single'",
    "back\\slash\\",
    "#x",
    "`id`",
    "ü ✓",
];

pub async fn arguments_arrive_as_they_are<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-args", root);
    let mut service = fixture
        .shell(1, "for word in \"$@\"; do printf '<%s>\\n' \"$word\"; done\necho end\nexec sleep 1000");
    service.start.extend(HOSTILE.map(str::to_owned));
    service.start.push(String::new());
    services.start(&service).await.unwrap();
    says(services, &service.id, "end").await;
    let said = services.last_lines(&service.id, 50).await;
    for word in HOSTILE.into_iter().chain([""]) {
        assert!(said.contains(&format!("<{word}>")), "{word:?} in {said:#?}");
    }
    services.remove(&service.id).await.unwrap();
}

pub async fn the_environment_arrives_as_it_is<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-env", root);
    let mut script = String::from("printf 'PORT=<%s>\\n' \"$PORT\"\n");
    for number in 0..HOSTILE.len() {
        script += &format!("printf '{number}=<%s>\\n' \"$HOSTILE_{number}\"\n");
    }
    let mut service = fixture.shell(1, &(script + "echo end\nexec sleep 1000"));
    for (number, value) in HOSTILE.iter().enumerate() {
        service.env.insert(format!("HOSTILE_{number}"), (*value).to_owned());
    }
    services.start(&service).await.unwrap();
    says(services, &service.id, "end").await;
    let said = services.last_lines(&service.id, 50).await;
    assert!(said.contains(&"PORT=<8081>".to_owned()));
    for (number, value) in HOSTILE.iter().enumerate() {
        assert!(said.contains(&format!("{number}=<{value}>")), "{value:?} in {said:#?}");
    }
    services.remove(&service.id).await.unwrap();
}

pub async fn the_environment_file_is_read<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-env-file", root);
    let mut service = fixture.shell(1, "echo \"$FROM_FILE, $BOTH, $PORT\"\nexec sleep 1000");
    let file = root.join("case-env-file.env");
    fs::write(&file, "# a comment\nFROM_FILE=\"of the file\"\nBOTH=file\nPORT=1\n").unwrap();
    service.env_file = Some(file);
    service.env.insert("BOTH".into(), "app file".into());
    services.start(&service).await.unwrap();
    says(services, &service.id, "of the file, app file, 8081").await;
    services.remove(&service.id).await.unwrap();
}

pub async fn credentials_are_files_of_their_names<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-credentials", root);
    let mut service = fixture.shell(1, "cat \"$CREDENTIALS_DIRECTORY/db\"; exec sleep 1000");
    let dir = root.join("case-credentials.secrets");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("db"), "a secret\n").unwrap();
    service.credentials = [("db".into(), Credential { path: dir.join("db"), encrypted: false })].into();
    services.start(&service).await.unwrap();
    says(services, &service.id, "a secret").await;
    services.remove(&service.id).await.unwrap();
}

pub async fn last_lines_are_of_the_last_start<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-lines", root);
    let id = fixture.id();
    services.start(&fixture.shell(1, "echo old\nexec sleep 1000")).await.unwrap();
    says(services, &id, "old").await;
    services.start(&fixture.shell(2, "echo one\necho two >&2\necho three\nexec sleep 1000")).await.unwrap();
    says(services, &id, "three").await;
    assert_eq!(services.last_lines(&id, 2).await, ["two", "three"]);
    assert!(!services.last_lines(&id, 50).await.contains(&"old".to_owned()));
    services.remove(&id).await.unwrap();
}

pub async fn a_hook_runs_beside_the_service_and_tells_its_end<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-hook", root);
    let mut exits = services.exits(&fixture.app);
    let service = fixture.sleeper(1);
    services.start(&service).await.unwrap();
    let before = running(services, &service.id).await;
    let hook = |script: &str| {
        let mut hook = service.clone();
        hook.start = vec!["/bin/sh".into(), "-c".into(), script.into()];
        hook.env.insert("WORD".into(), "a \"word\" of $1".into());
        hook
    };

    let script = "echo $WORD; pwd; test -w $STATE_DIRECTORY && echo state";
    let finished = services.run(Hook::Prepare, &hook(script)).await.unwrap();
    let dir = service.dir.to_str().unwrap();
    assert_eq!(
        finished,
        Finished { failure: None, lines: ["a \"word\" of $1", dir, "state"].map(str::to_owned).into() }
    );

    let finished = services.run(Hook::Prepare, &hook("echo again >&2; exit 3")).await.unwrap();
    assert_eq!(finished.lines, ["again"], "only what it wrote this time");
    assert!(finished.failure.is_some_and(|exit| exit.how == "exit status 3"));

    assert_eq!(running(services, &service.id).await, before, "the service is not touched");
    assert!(exits.try_recv().is_err());
    services.remove(&service.id).await.unwrap();
}

pub async fn a_hook_that_takes_too_long_is_ended<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-long-hook", root);
    let mut hook = fixture.shell(1, "echo begun; sleep 1000");
    hook.start_timeout = Duration::from_secs(1);
    let begin = Instant::now();
    let finished = services.run(Hook::Verify, &hook).await.unwrap();
    assert!(finished.failure.is_some() && finished.lines == ["begun"], "{finished:?}");
    assert!(begin.elapsed() < PATIENCE);
    services.remove(&hook.id).await.unwrap();
}

const LISTENER: &str = "#!/usr/bin/python3
import socket, time
four = socket.create_server(('127.0.0.1', 0))
six = socket.create_server(('::', 0), family=socket.AF_INET6)
print(four.getsockname()[1], six.getsockname()[1], flush=True)
time.sleep(1000)
";

pub async fn finds_listening_ports<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-ports", root);
    let service = fixture.service(1, LISTENER);
    services.start(&service).await.unwrap();
    let said = eventually("its ports", || async { services.last_lines(&service.id, 1).await.pop() }).await;
    let mut ports: Vec<u16> = said.split(' ').map(|port| port.parse().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(services.listening_ports(&service.id).await, ports);
    services.remove(&service.id).await.unwrap();
}

const NOTIFIER: &str = "#!/usr/bin/python3
import os, socket, time
time.sleep(0.3)
print('now', flush=True)
to = os.environ['NOTIFY_SOCKET']
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', '\\0' + to[1:] if to[0] == '@' else to)
time.sleep(1000)
";

pub async fn notify_waits_until_it_is_ready<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-notify", root);
    let mut service = fixture.service(1, NOTIFIER);
    service.notify = true;
    services.start(&service).await.unwrap();
    says(services, &service.id, "now").await;
    services.remove(&service.id).await.unwrap();
}

pub async fn notify_that_never_gets_ready_fails<S: Services>(services: &S, root: &Path) {
    let fixture = Fixture::new("case-mute", root);
    let mut service = fixture.sleeper(1);
    service.notify = true;
    service.start_timeout = Duration::from_millis(500);
    let failure = services.start(&service).await.unwrap_err();
    assert!(matches!(failure, ServiceError::Failed(_)), "{failure:?}");
    assert_eq!(services.running(&service.id).await.unwrap(), None);
    services.remove(&service.id).await.unwrap();
}
