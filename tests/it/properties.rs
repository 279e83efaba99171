//! What holds for all names, catalogues and states, not only for those that somebody thought of.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dorc::model::app::{AppName, Check, Credential, Sandbox, ServiceConfig};
use dorc::model::colour::{ByColour, Colour};
use dorc::model::deployment::{Live, Saved};
use dorc::model::health::Failure;
use dorc::model::hooks::{Hook, Hooks};
use dorc::model::proxy_protocol::ProxyProtocol;
use dorc::model::release::{Catalogue, Digest, Recipe, Release, ReleaseId, Verdict};
use dorc::model::share::{Plan, Share, Step};
use dorc::state::{AppState, Freeze, ReadError, StateDir};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn id() -> impl Strategy<Value = ReleaseId> {
    (any::<u32>(), digest()).prop_map(|(number, digest)| ReleaseId::new(number, &digest))
}

fn failure() -> impl Strategy<Value = Failure> {
    (any::<String>(), option::of(any::<String>()), vec(any::<String>(), 0..3))
        .prop_map(|(reason, last_probe, log)| Failure { reason, last_probe, log })
}

fn time() -> impl Strategy<Value = SystemTime> {
    (0..4_000_000_000_000_u64).prop_map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Untried), time().prop_map(Verdict::Good), failure().prop_map(Verdict::Failed),]
}

fn both<T: std::fmt::Debug>(of: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = ByColour<T>> {
    (of.clone(), of).prop_map(|(blue, green)| ByColour { blue, green })
}

fn path() -> impl Strategy<Value = PathBuf> + Clone {
    any::<String>().prop_map(PathBuf::from)
}

fn hooks() -> impl Strategy<Value = Hooks> {
    let hook = proptest::sample::select(Hook::ALL.to_vec());
    let commands = proptest::collection::btree_map(hook, vec(any::<String>(), 1..3), 0..5);
    (commands, 0..100_000_u64).prop_map(|(commands, millis)| {
        // Of none it is not kept how long they may take.
        let deadline = Duration::from_millis(if commands.is_empty() { 0 } else { millis });
        Hooks { commands, deadline }
    })
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let words = || both(vec(any::<String>(), 1..3));
    let check = prop_oneof![
        (0..100_000_u64).prop_map(|millis| Check::Port { up_for: Duration::from_millis(millis) }),
        any::<(String, String)>().prop_map(|(path, host)| Check::Http { path, host }),
        vec(any::<String>(), 1..3).prop_map(Check::Command),
    ];
    let commands = (words(), option::of(words()), option::of(words()), option::of(both(any::<u16>())));
    let env = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..3);
    let credential = (path(), any::<bool>()).prop_map(|(path, encrypted)| Credential { path, encrypted });
    let credentials = proptest::collection::btree_map(any::<String>(), credential, 0..3);
    let places =
        (env, option::of(path()), credentials, option::of(any::<String>()), option::of(both(path())));
    let proxy = option::of(prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)]);
    let rest = (option::of(any::<String>()), proxy, any::<bool>(), any::<bool>(), path(), check, hooks());
    (commands, places, rest).prop_map(
        |(
            (start, reload, stop, ports),
            (env, env_file, credentials, user, working_dir),
            (memory_max, proxy_protocol, strict, notify, bin, check, hooks),
        )| {
            let sandbox = if strict { Sandbox::Strict } else { Sandbox::Off };
            let service = ServiceConfig {
                start,
                reload,
                stop,
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
            };
            Recipe { bin, service, check, hooks }
        },
    )
}

fn release() -> impl Strategy<Value = Release> {
    let label = option::of("[^\\pC\\s]{1,20}".prop_map(|text| text.parse().unwrap()));
    (id(), digest(), digest(), recipe(), time(), any::<(u64, u64)>(), label, verdict()).prop_map(
        |(id, artifact, config, recipe, taken, (files, bytes), label, verdict)| Release {
            id,
            artifact,
            config,
            recipe,
            taken,
            files,
            bytes,
            label,
            verdict,
        },
    )
}

fn live() -> impl Strategy<Value = Live> {
    (any::<bool>(), id()).prop_map(|(green, release)| Live {
        colour: if green { Colour::Green } else { Colour::Blue },
        release,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let share = (1..Share::WHOLE).prop_map(|parts| Share::new(parts).unwrap());
    let time = (1..9_000_000_u64).prop_map(Duration::from_millis);
    let step = (share.clone(), time.clone()).prop_map(|(share, time)| Step { share, time });
    (share, option::of(time), vec(step, 0..3)).prop_map(|(share, time, rest)| Plan { share, time, rest })
}

fn state() -> impl Strategy<Value = AppState> {
    let saved = (
        option::of(live()),
        option::of((id(), option::of(failure()))),
        option::of(id()),
        any::<bool>(),
        option::of(plan()),
    )
        .prop_map(|(active, standby, wanted, baking, canary)| Saved {
            active,
            standby,
            wanted,
            baking,
            canary,
        });
    let freeze =
        (any::<String>(), any::<String>(), time()).prop_map(|(who, why, since)| Freeze { who, why, since });
    let catalogue = (vec(release(), 0..3), any::<u32>())
        .prop_map(|(releases, last_number)| Catalogue { releases, last_number });
    let directory = (option::of(any::<String>()), option::of(digest()));
    (catalogue, saved, option::of(both(any::<u16>())), directory, option::of(freeze)).prop_map(
        |(catalogue, saved, ports, (fingerprint, in_directory), freeze)| AppState {
            catalogue,
            saved,
            ports,
            fingerprint,
            in_directory,
            freeze,
        },
    )
}

/// A catalogue of releases that differ in number and verdict only.
fn catalogue() -> impl Strategy<Value = Catalogue> {
    (release(), vec((0..5_u64, 0..3), 0..12)).prop_map(|(like, verdicts)| {
        let mut catalogue = Catalogue::default();
        for (when, verdict) in verdicts {
            let verdict = match verdict {
                0 => Verdict::Untried,
                1 => Verdict::Failed(Failure::because("why")),
                _ => Verdict::Good(UNIX_EPOCH + Duration::from_secs(when)),
            };
            let id = catalogue.take_id(&Digest([3; 32]));
            catalogue.add(Release { id, verdict, ..like.clone() });
        }
        catalogue
    })
}

proptest! {
    #[test]
    fn names_of_releases_are_read_back(id in id(), digest in digest()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn what_is_read_as_a_name_is_that_name(text in "r?[0-9]{0,12}-?[0-9a-fA-F+]{0,9}") {
        if let Ok(id) = text.parse::<ReleaseId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        let _ = (text.parse::<ReleaseId>(), text.parse::<Digest>(), text.parse::<Colour>());
        if let Ok(name) = AppName::new(&text) {
            prop_assert_eq!(name.as_str(), text);
        }
    }

    /// They become names of units, of folders and of files, and parts of URLs.
    #[test]
    fn names_of_apps_are_harmless(text in "[a-c.\\-/@A 0%\\\\]{0,34}") {
        if let Ok(name) = AppName::new(&text) {
            let text = name.as_str();
            prop_assert!(text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()));
            prop_assert!(!text.contains("..") && !text.contains(['/', '@', '%', '\\', ' ', 'A']));
        }
    }

    #[test]
    fn what_is_held_is_never_superfluous(catalogue in catalogue(), keep in 0..6_usize, held in vec(1..13_u32, 0..4)) {
        let held: Vec<ReleaseId> = held.iter().map(|number| ReleaseId::new(*number, &Digest([3; 32]))).collect();
        let superfluous = catalogue.superfluous(keep, &held);
        let last_good = catalogue.last_good(held.first().copied()).map(|release| release.id);
        for release in &superfluous {
            prop_assert!(!held.contains(release) && last_good != Some(*release));
        }
        let mut left = catalogue.clone();
        superfluous.iter().for_each(|release| left.forget(*release));
        prop_assert!(left.superfluous(keep, &held).is_empty(), "once is enough");
        for served in [true, false] {
            let of = |catalogue: &Catalogue| {
                catalogue.releases.iter().filter(|release| release.served().is_some() == served).count()
            };
            prop_assert!(of(&left) >= of(&catalogue).min(keep), "too few are left");
            prop_assert!(of(&left) <= keep + held.len() + 1, "too many are left");
        }
        prop_assert_eq!(left.last_good(held.first().copied()).map(|release| release.id), last_good);
    }

    #[test]
    fn numbers_are_never_used_twice(mut catalogue in catalogue()) {
        let before = catalogue.last_number;
        let (one, other) = (catalogue.take_id(&Digest([1; 32])), catalogue.take_id(&Digest([1; 32])));
        prop_assert!(before < one.number && one.number < other.number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_state_is_read_as_it_was_written(state in state()) {
        let (_root, dir) = place();
        dir.write(&state).unwrap();
        let (read, warning) = dir.read().unwrap();
        prop_assert_eq!((read, warning), (state, None));
    }

    #[test]
    fn a_broken_state_is_the_one_before_or_an_error(before in state(), now in state(), at in any::<prop::sample::Index>(), with in 1..=255_u8) {
        let (_root, dir) = place();
        dir.write(&before).unwrap();
        dir.write(&now).unwrap();
        let (current, previous) = (dir.path().join("state.json"), dir.path().join("state.json.previous"));
        let whole = fs::read(&current).unwrap();
        let mut broken = whole.clone();
        broken[at.index(whole.len())] ^= with;
        fs::write(&current, &broken).unwrap();
        let (read, _) = dir.read().unwrap();
        prop_assert!(read == before || read == now);

        fs::write(&current, &whole[..at.index(whole.len())]).unwrap();
        let (read, warning) = dir.read().unwrap();
        if read == now {
            prop_assert_eq!(at.index(whole.len()), whole.len() - 1, "only the end of the line is missing");
        } else {
            prop_assert_eq!(&read, &before);
            prop_assert!(warning.is_some());
        }
        fs::write(&previous, b"{").unwrap();
        fs::write(&current, b"").unwrap();
        prop_assert!(matches!(dir.read(), Err(ReadError::Broken { .. })), "both are broken");
    }
}

/// Each byte of one state, with each bit of it.
#[test]
fn no_single_bit_makes_another_state() {
    let (_root, dir) = place();
    let mut state = AppState { fingerprint: Some("a".into()), ..AppState::default() };
    dir.write(&state).unwrap();
    state.fingerprint = Some("b".into());
    dir.write(&state).unwrap();
    let current = dir.path().join("state.json");
    let whole = fs::read(&current).unwrap();
    for index in 0..whole.len() {
        for bit in 0..8 {
            let mut broken = whole.clone();
            broken[index] ^= 1 << bit;
            fs::write(&current, &broken).unwrap();
            let (read, warning) = dir.read().unwrap();
            let expected = if warning.is_some() { "a" } else { "b" };
            assert_eq!(read.fingerprint.as_deref(), Some(expected), "byte {index}, bit {bit}");
        }
    }
}

fn place() -> (tempfile::TempDir, StateDir) {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::new(root.path().join("apps/web"));
    (root, dir)
}
