//! The app file that is written for a new app means that app.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dorc::config;
use dorc::model::app::{
    App, AppName, Check, Credential, HealthConfig, PlaneChoice, Promote, ReleaseBin, Sandbox, ServiceConfig,
    SwitchConfig,
};
use dorc::model::colour::ByColour;
use dorc::model::hooks::{Hook, Hooks};
use dorc::model::proxy_protocol::ProxyProtocol;
use dorc::model::share::{Share, Step};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::fixtures::valid;

fn text() -> impl Strategy<Value = String> {
    // Quotes, blanks, backslashes inside, TOML's and the shell's special signs, and letters of the world.
    "[a-z\"'\\\\ #$%=\\[\\]{}äß漢😀-]{0,12}[a-z\"'ä]"
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec("[a-zA-Z0-9 \"'#ä%-]{1,10}", 1..4)
        .prop_map(|parts| PathBuf::from(format!("/srv/{}", parts.join("/"))))
}

fn command() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof![
        Just("{port}".to_owned()),
        Just("{colour}-x".to_owned()),
        no_braces(),
        Just(String::new())
    ];
    (prop_oneof![Just("{bin}".to_owned()), Just("/usr/bin/env".to_owned())], vec(word, 0..5))
        .prop_map(|(program, rest)| std::iter::once(program).chain(rest).collect())
}

fn no_braces() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace(['{', '}'], ""))
}

fn both<T: Clone>(value: T) -> ByColour<T> {
    ByColour::from_fn(|_| value.clone())
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn service() -> impl Strategy<Value = ServiceConfig> {
    let working_dir = prop_oneof![
        path().prop_map(|dir| ByColour { blue: dir.join("blue"), green: dir.join("green") }),
        path().prop_map(|dir| ByColour { blue: dir.join("blue-x"), green: dir.join("green-x") }),
    ];
    let ports =
        option::of((2000_u16..3000, 3000_u16..4000).prop_map(|(blue, green)| ByColour { blue, green }));
    let sandbox = prop_oneof![Just(Sandbox::Strict), Just(Sandbox::Off)];
    let env = btree_map("[A-Z_][A-Z0-9_]{0,8}", text(), 0..4).prop_map(|mut env| {
        env.remove("PORT");
        env
    });
    let credential = (path(), any::<bool>()).prop_map(|(path, encrypted)| Credential { path, encrypted });
    let credentials = btree_map("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,8}", credential, 0..3);
    (
        (command(), option::of(command()), ports, env, option::of(path()), credentials),
        (option::of("[a-z_][a-z0-9_-]{0,8}"), option::of(working_dir)),
        (option::of(prop_oneof![Just("512M".to_owned()), Just("50%".to_owned())]), sandbox, any::<bool>()),
        option::of(prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)]),
    )
        .prop_map(
            |(
                (start, reload, ports, env, env_file, credentials),
                (user, working_dir),
                (memory_max, sandbox, notify),
                proxy_protocol,
            )| {
                ServiceConfig {
                    start: both(start),
                    reload: reload.map(both),
                    stop: None,
                    ports,
                    env,
                    env_file,
                    credentials,
                    user,
                    working_dir,
                    memory_max,
                    proxy_protocol,
                    sandbox,
                    notify,
                }
            },
        )
}

fn health() -> impl Strategy<Value = HealthConfig> {
    let check = prop_oneof![
        Just(Check::Port { up_for: Duration::from_secs(1) }),
        ("/[a-z0-9?=&%\"']{0,8}", prop_oneof![Just("localhost"), Just("[::1]:80")])
            .prop_map(|(path, host)| Check::Http { path, host: host.to_owned() }),
        command().prop_map(Check::Command),
    ];
    (check, millis(10..1000), millis(10..5000), 1_u32..50, millis(50_000..90_000_000 / 2)).prop_map(
        |(check, interval, timeout, successes, deadline)| HealthConfig {
            check,
            interval,
            timeout,
            successes,
            deadline,
        },
    )
}

fn switch() -> impl Strategy<Value = SwitchConfig> {
    let promote = prop_oneof![Just(Promote::Manual), Just(Promote::Auto)];
    let canary = vec((1..10_000_u16, millis(1..9_000_000)), 0..3).prop_map(|mut steps| {
        steps.sort();
        steps.dedup_by_key(|(parts, _)| *parts);
        let step = |(parts, time)| Some(Step { share: Share::new(parts)?, time });
        steps.into_iter().filter_map(step).collect()
    });
    let bake = (millis(0..600_000), any::<bool>());
    (promote, option::of(millis(0..9_000_000)), bake, canary, millis(0..600_000)).prop_map(
        |(promote, drain, (bake, failover), canary, hold)| SwitchConfig {
            promote,
            drain,
            bake,
            failover,
            canary,
            hold,
        },
    )
}

fn hooks() -> impl Strategy<Value = Hooks> {
    let commands = btree_map(prop::sample::select(Hook::ALL.to_vec()), command(), 0..5);
    (commands, millis(100..86_400_000)).prop_map(|(commands, deadline)| Hooks { commands, deadline })
}

fn app() -> impl Strategy<Value = App> {
    let address = prop_oneof![Just("127.0.0.1"), Just("[::1]"), Just("192.0.2.7")];
    let listen = vec(address, 1..4).prop_map(|hosts| {
        let numbered = hosts.iter().zip(4000..);
        numbered.map(|(host, port)| format!("{host}:{port}").parse().unwrap()).collect::<Vec<SocketAddr>>()
    });
    let plane = prop_oneof![Just(PlaneChoice::Auto), Just(PlaneChoice::Kernel), Just(PlaneChoice::Tcp)];
    let bin = prop_oneof![
        "[a-z][a-z0-9 '\"]{0,5}(/[a-z]{1,3})?".prop_map(|path| ReleaseBin::Inside(path.into())),
        path().prop_map(|path| ReleaseBin::Outside(path.join("bin"))),
    ];
    let deployers = prop::collection::btree_set("[a-z]{1,4}", 0..3).prop_map(Vec::from_iter);
    let rest = (hooks(), 1_usize..100, millis(10..600_000));
    (listen, plane, bin, deployers, service(), health(), switch(), rest).prop_map(
        |(listen, plane, bin, deployers, service, health, switch, (hooks, keep, settle))| {
            let mut app =
                config::new_app(AppName::new("web").unwrap(), listen, "/upload/\"a\" dir".into(), bin);
            app.plane = plane;
            app.deployers = deployers;
            app.service = service;
            app.service.proxy_protocol.take_if(|_| plane == PlaneChoice::Kernel);
            app.health = health;
            app.hooks = hooks;
            app.switch = switch;
            app.release.keep = keep;
            app.release.settle = settle;
            app
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back(app in app()) {
        let text = config::render_new(&app);
        let read = config::parse(&app.name, &text);
        prop_assert_eq!(read.as_ref(), Ok(&app), "{}", text);
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,200}", line in "(listen|service|health)( = |\\.)[\\[\\]{}\"0-9a-z= ]{0,40}") {
        let name = AppName::new("web").unwrap();
        let _ = config::parse(&name, &text);
        prop_assert_eq!(config::parse(&name, &line).is_err(), true);
    }
}

#[test]
fn only_what_was_chosen_is_written() {
    let text = config::render_new(&valid("smallest").app);
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        ["listen = 80", "release_dir = \"/srv/upload/web\"", "release_bin = \"web\""]
    );
}

#[test]
fn every_hint_is_right() {
    let text = config::render_new(&valid("smallest").app);
    let alternatives = ["# command", "# host"];
    let uncommented: Vec<&str> = text
        .lines()
        .filter(|line| !alternatives.iter().any(|alternative| line.starts_with(alternative)))
        .map(|line| if line.contains(" = ") { line.trim_start_matches("# ") } else { line })
        .collect();
    let app = config::parse(&AppName::new("web").unwrap(), &uncommented.join("\n"));
    assert_eq!(app.map(|app| app.service.ports), Ok(Some(ByColour { blue: 8081, green: 8082 })), "{text}");
}

#[test]
fn an_app_of_the_first_dorc_can_be_written_in_the_own_format() {
    for name in ["dwbrite.com", "api"] {
        let app = valid(name).app;
        let read = config::parse(&app.name, &config::render_new(&app));
        if name == "api" {
            let dirs = app.service.working_dir.clone();
            assert_ne!(
                read.as_ref().unwrap().service.working_dir,
                dirs,
                "these folders have no colour in them"
            );
            continue;
        }
        assert_eq!(read, Ok(app));
    }
}
