//! Unit files: whatever an app file says, they mean what dorc meant.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says when it is skipped")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use dorc::model::app::{AppName, Credential, Sandbox, Service, ServiceId};
use dorc::model::colour::Colour;
use dorc::model::release::{Digest, ReleaseId};
use dorc::services::unit::{Places, dynamic_user, environment, release_in, render};
use proptest::prelude::*;

fn service() -> Service {
    let release = ReleaseId::new(17, &Digest([0x3f; 32]));
    let dir = format!("/var/lib/dorc/apps/web/releases/{release}");
    Service {
        id: ServiceId { app: AppName::new("web").unwrap(), colour: Colour::Blue },
        release,
        dir: dir.clone().into(),
        start: vec![format!("{dir}/web"), "--port".into(), "8081".into()],
        reload: None,
        stop: None,
        env: BTreeMap::from([("PORT".into(), "8081".into())]),
        env_file: None,
        credentials: Default::default(),
        user: None,
        working_dir: dir.into(),
        memory_max: None,
        sandbox: Sandbox::Strict,
        notify: false,
        start_timeout: Duration::from_secs(60),
    }
}

fn rendered(service: &Service) -> String {
    render(service, &Places::default()).unwrap()
}

/// The directives of a unit file as systemd reads its lines: joined, without comments.
fn directives(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.split(['\n', '\r']).map(str::trim_start);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .map(|line| match line.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect()
}

fn value(text: &str, key: &str) -> String {
    directives(text).into_iter().find(|(found, _)| found == key).map(|(_, value)| value).unwrap()
}

/// What a program gets of a line of quoted words.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(quote) = chars.next() {
        assert_eq!(quote, '"', "in {line}");
        let mut word = String::new();
        loop {
            match chars.next().expect("the quote ends") {
                '"' => break,
                '\\' => word.push(chars.next().unwrap()),
                c @ ('%' | '$') => {
                    assert_eq!(chars.next(), Some(c), "doubled in {line}");
                    word.push(c);
                }
                c => word.push(c),
            }
        }
        words.push(word);
        assert!(matches!(chars.next(), None | Some(' ')));
    }
    words
}

/// Text that tries hard.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\nUser=root\n".to_owned()),
        Just("\\".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("%n$HOME${PATH}%%".to_owned()),
        Just(" ; ExecStart=/bin/sh ".to_owned()),
        Just("[Service]".to_owned()),
        Just("#".to_owned()),
        Just("\u{85}\u{2028}\r\0".to_owned()),
        Just(":/etc:".to_owned()),
        "[ -~]{0,6}",
        "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_hostile_text_changes_its_own_directive_only(text in hostile(), place in 0_usize..10) {
        let mut harmless = service();
        let mut service = service();
        for (service, text) in [(&mut harmless, "x"), (&mut service, text.as_str())] {
            match place {
                0 => service.start.push(text.into()),
                1 => service.start[0] = format!("/{text}"),
                2 => service.reload = Some(vec!["/bin/kill".into(), text.into()]),
                3 => service.working_dir = format!("/{text}").into(),
                4 => service.env_file = Some(format!("/{text}").into()),
                5 => service.user = Some(text.into()),
                6 => service.memory_max = Some(if text == "x" { "1M".into() } else { text.into() }),
                7 => service.credentials = [(text.into(), credential("/etc/secret"))].into(),
                8 => service.credentials = [("db".into(), credential(&format!("/{text}")))].into(),
                _ => service.stop = Some(vec![text.into(), text.into()]),
            }
        }
        if let Ok(unit) = render(&service, &Places::default()) {
            let (expected, got) = (directives(&rendered(&harmless)), directives(&unit));
            prop_assert_eq!(expected.len(), got.len());
            for (expected, got) in expected.iter().zip(&got) {
                prop_assert_eq!(&expected.0, &got.0);
                let own = ["ExecStart", "ExecReload", "ExecStop", "WorkingDirectory", "BindPaths", "ReadWritePaths",
                    "EnvironmentFile", "User", "MemoryMax", "LoadCredential"];
                prop_assert!(expected.1 == got.1 || own.contains(&expected.0.as_str()));
            }
            prop_assert_eq!(words(&value(&unit, "ExecStart")), service.start);
            if let Some(reload) = service.reload {
                prop_assert_eq!(words(&value(&unit, "ExecReload")), reload);
            }
        }
    }

    #[test]
    fn printable_arguments_are_never_refused(text in "[ -~]{0,30}") {
        let mut service = service();
        service.start.push(text);
        prop_assert_eq!(words(&value(&rendered(&service), "ExecStart")), service.start);
    }

    #[test]
    fn the_environment_has_one_assignment_for_each_variable(text in hostile(), more in hostile()) {
        let mut service = service();
        service.env = BTreeMap::from([("A".into(), text), ("B".into(), more)]);
        if let Ok(file) = environment(&service) {
            let mut read = BTreeMap::new();
            let mut rest = file.split_once('\n').unwrap().1;
            while let Some((name, after)) = rest.split_once("=\"") {
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => value.push(chars.next().unwrap().1),
                        (_, c) => value.push(c),
                    }
                };
                read.insert(name.to_owned(), value);
                rest = after[end + 1..].strip_prefix('\n').unwrap();
            }
            prop_assert_eq!(read, service.env);
        }
    }
}

fn credential(path: &str) -> Credential {
    Credential { path: path.into(), encrypted: false }
}

#[test]
fn credentials_are_loaded_each_in_its_way() {
    let mut service = service();
    let sealed = Credential { encrypted: true, ..credential("/etc/100% sealed") };
    service.credentials = [("db".to_owned(), credential("/etc/a:b")), ("tls.key".to_owned(), sealed)].into();
    let unit = rendered(&service);
    assert_eq!(value(&unit, "LoadCredential"), "db:/etc/a:b");
    assert_eq!(value(&unit, "LoadCredentialEncrypted"), "tls.key:/etc/100%% sealed");
}

#[test]
fn what_can_not_be_written_is_refused_with_a_sentence() {
    let refusal = |change: &dyn Fn(&mut Service)| {
        let mut service = service();
        change(&mut service);
        render(&service, &Places::default()).unwrap_err().to_string()
    };
    for prefix in ['@', '-', ':', '+', '!'] {
        assert!(
            refusal(&|s| s.start[0] = format!("{prefix}/bin/sh"))
                .contains("would change how systemd runs it")
        );
    }
    assert!(refusal(&|s| s.start.push("a\nb".into())).contains("control character"));
    assert!(refusal(&|s| s.working_dir = "/srv/a\\".into()).contains("join the next line"));
    assert!(refusal(&|s| s.env_file = Some("/etc/*.env".into())).contains("pattern"));
    for name in ["", "../x", ".x", "a b", "a:b", "a\nb"] {
        let refused = refusal(&|s| s.credentials = [(name.into(), credential("/etc/x"))].into());
        assert!(refused.contains("a credential can't be"), "{name:?}: {refused}");
    }
    assert!(refusal(&|s| s.user = Some("a b".into())).contains("letters, digits"));
    assert!(refusal(&|s| s.memory_max = Some("lots".into())).contains("512M"));
    assert!(refusal(&|s| s.start.clear()).contains("needs a program"));
}

#[test]
fn the_unit_says_what_it_is_and_which_release_it_runs() {
    let unit = rendered(&service());
    assert!(unit.starts_with("# dorc wrote this file"));
    assert!(unit.contains("systemctl edit blue-web.service"));
    assert_eq!(release_in(&unit), Some(service().release));
    assert_eq!(release_in("[Unit]\n"), None);
    assert!(!unit.contains("PORT"), "the environment is in a file of its own");
}

#[test]
fn dynamic_users_are_valid_and_nobody_elses() {
    let user = |name: &str| dynamic_user(&AppName::new(name).unwrap());
    assert_eq!(user("web"), "dorc-web");
    let long = "a234567890123456789012345678901";
    let names =
        ["a.b", "a-b", "a.c", &format!("{long}x"), &format!("{long}y"), "abcdefghijklmnop.qrstuvwxyz"];
    let users: std::collections::BTreeSet<String> = names.iter().map(|name| user(name)).collect();
    assert_eq!(users.len(), names.len());
    for user in users {
        assert!(
            user.len() <= 31 && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
            "{user}"
        );
    }
}

/// The exposure that `systemd-analyze security` finds, in tenths.
fn exposure(service: &Service) -> Option<u32> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blue-web.service");
    std::fs::write(&file, rendered(service)).unwrap();
    let answer = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&file)
        .output();
    let Ok(answer) = answer else {
        eprintln!("skipped: systemd-analyze is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let line =
        text.lines().find(|line| line.contains("Overall exposure")).unwrap_or_else(|| panic!("{answer:?}"));
    let score = line.split(": ").nth(1).unwrap().split(' ').next().unwrap();
    Some(score.replace('.', "").parse().unwrap())
}

#[test]
fn the_default_sandbox_is_tight() {
    if let Some(score) = exposure(&service()) {
        assert!(score <= 15, "{score}");
    }
    let open = Service { sandbox: Sandbox::Off, user: Some("root".into()), ..service() };
    if let Some(score) = exposure(&open) {
        assert!(score > 80, "off is off: {score}");
    }
}
