//! When hooks are run, and what comes of their failures.

use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Wait};
use dorc::model::hooks::Hook;
use tokio::time::sleep;

use super::{Bed, deploy, done, within};

/// One whose app runs these, and whose first release is active.
async fn with(hooks: &[(Hook, &str)]) -> Bed {
    let bed = Bed::with(|app| {
        app.hooks.commands = hooks
            .iter()
            .map(|(hook, words)| (*hook, words.split(' ').map(str::to_owned).collect()))
            .collect();
    })
    .await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed
}

/// What was done from the second release on, without its name: `start blue-web`.
fn calls(bed: &Bed) -> Vec<String> {
    let calls = bed.services.calls();
    let of_second = calls.iter().skip_while(|call| !call.contains(" r2-"));
    of_second.map(|call| call.split(" r2-").next().unwrap().to_owned()).collect()
}

async fn deploy_second(bed: &Bed) -> Outcome {
    bed.upload("2", "");
    bed.until("it is taken", |view| view.catalogue.find("r2").is_some()).await;
    bed.deploy("r2").await
}

#[tokio::test(start_paused = true)]
async fn each_has_its_moment() {
    let all = Hook::ALL.map(|hook| (hook, "/true {port} {colour}"));
    let bed = with(&all).await;
    assert_eq!(done(&deploy_second(&bed).await).0, Colour::Blue);
    let verbs = ["prepare", "end", "start", "verify", "switched", "bake"];
    assert_eq!(calls(&bed), verbs.map(|verb| format!("{verb} blue-web")));
    let words = bed.services.calls().iter().find(|call| call.starts_with("verify blue")).cloned().unwrap();
    let port = bed.view().await.ports.blue;
    assert!(words.ends_with(&format!("/true {port} blue")), "{words}");
}

#[tokio::test(start_paused = true)]
async fn coming_back_needs_no_preparation() {
    let bed = with(&[(Hook::Prepare, "/true"), (Hook::Verify, "/true"), (Hook::Switched, "/true")]).await;
    done(&deploy_second(&bed).await);
    bed.upload("3", "");
    bed.warm(3).await;
    let before = bed.services.calls().len();
    assert_eq!(done(&bed.deploy("r1").await).0, Colour::Green);
    let since: Vec<_> = bed.services.calls().drain(before..).collect();
    let verbs: Vec<_> = since.iter().map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["end", "start", "switched"], "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_preparation_or_test_fails_the_release() {
    for (hook, expected) in [
        (Hook::Prepare, &["prepare blue-web", "failed blue-web"][..]),
        (Hook::Verify, &["start blue-web", "verify blue-web", "stop blue-web", "failed blue-web"]),
    ] {
        let bed = Bed::live().await;
        let mut app = bed.app.clone();
        app.hooks.commands.insert(hook, vec!["/false".into()]);
        app.hooks.commands.insert(Hook::Failed, vec!["/true".into()]);
        // The first release with another configuration is the second one.
        bed.handle.update(app, "ann".into()).await.unwrap().unwrap();
        let asked = bed.ask(deploy("r2", false), Wait::Baked).await;
        let outcome = within(asked).await.unwrap();
        let Outcome::NotHealthy { failure, .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.reason, format!("the hook {hook} failed: exit status 1"));
        assert_eq!(failure.log, ["no"]);
        bed.steady_on(Colour::Green, 1).await;
        sleep(Duration::from_secs(60)).await;
        // It may have been tried before it was asked for.
        let calls = calls(&bed);
        assert!(calls.chunks(expected.len()).all(|tried| tried == expected), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_in_the_bake_goes_back_by_itself() {
    let bed = Bed::live().await;
    let mut app = bed.app.clone();
    app.hooks.commands.insert(Hook::Bake, vec!["/false".into()]);
    bed.handle.update(app, "ann".into()).await.unwrap().unwrap();
    let outcome = bed.deploy("r2").await;
    let Outcome::RolledBack { failed, failure, active } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((failed.release.number, active.release.number), (2, 1));
    assert!(failure.reason.contains("the hook bake failed"), "{failure:?}");
    bed.steady_on(Colour::Green, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_after_the_bake_is_only_told() {
    let bed = Bed::live().await;
    let mut app = bed.app.clone();
    app.hooks.commands.insert(Hook::Switched, vec!["/false".into()]);
    bed.handle.update(app, "ann".into()).await.unwrap().unwrap();
    assert_eq!(done(&bed.deploy("r2").await).0, Colour::Blue);
    let view = bed.steady_on(Colour::Blue, 2).await;
    assert!(matches!(view.deployment.phase(), Phase::Steady { .. }));
}
