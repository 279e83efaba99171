//! From an upload to traffic.

use std::fs;
use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Standby, Upload, Wait};
use dorc::model::release::Verdict;
use dorc::routing::Route;

use super::{Bed, auto, done, switch_to, within};

#[tokio::test(start_paused = true)]
async fn the_first_release_goes_live_by_itself_and_the_second_waits() {
    let bed = Bed::live().await;
    bed.upload("2", "");
    let view = bed.warm(2).await;
    assert!(super::is_active(&view, Colour::Green, 1));
    assert_eq!(bed.route.pointing_at().unwrap().colour, Colour::Green);

    let outcome = bed.switch().await;
    assert_eq!(done(&outcome).0, Colour::Blue);
    let target = bed.route.pointing_at().unwrap();
    assert_eq!((target.colour, target.address.port()), (Colour::Blue, view.ports.blue));
    assert_eq!(done(&bed.switch().await).0, Colour::Green, "again is the way back");
}

#[tokio::test(start_paused = true)]
async fn auto_promotes_what_is_ready() {
    let bed = Bed::with(auto).await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed.upload("2", "");
    bed.steady_on(Colour::Blue, 2).await;
}

#[tokio::test(start_paused = true)]
async fn upload_and_switch_belong_together() {
    let bed = Bed::live().await;
    bed.upload("2", "");
    assert_eq!(done(&bed.switch().await).1.number, 2);
    // What is active was uploaded again: the other colour is not what is meant.
    bed.upload("2", "");
    let again = bed.switch().await;
    assert!(
        matches!(again, Outcome::Done { active, already: true, .. } if active.release.number == 2),
        "{again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_changes_nothing_and_is_tried_again_only_by_name() {
    let bed = Bed::live().await;
    bed.upload("2", "exit 3");
    let outcome = bed.switch().await;
    let Outcome::NotHealthy { release: Some(bad), colour, failure, rollback, active } = &outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((bad.number, *colour, *rollback), (2, Some(Colour::Blue), false));
    assert!(failure.reason.contains("exit status 3"), "{failure:?}");
    assert_eq!(failure.log, ["blue-web speaks"]);
    assert_eq!(active.unwrap().release.number, 1);

    // The same bytes again: the old answer, and no new start.
    let starts = bed.starts().len();
    bed.upload("3", "");
    bed.warm(3).await;
    bed.upload("2", "exit 3");
    let again = bed.switch().await;
    assert!(matches!(&again, Outcome::NotHealthy { release: Some(same), .. } if same == bad), "{again:?}");
    assert_eq!(bed.starts().len(), starts + 1, "r3 and nothing else");

    // By its name it is tried again, and may be good by now.
    let stored = bed.dir().join("releases").join(bad.to_string()).join("behaviour");
    fs::write(stored, "").unwrap();
    assert_eq!(done(&bed.switch_to("r2").await).1, *bad);
    let view = bed.view().await;
    assert!(matches!(view.catalogue.get(*bad).unwrap().verdict, Verdict::Good(_)));
}

#[tokio::test(start_paused = true)]
async fn a_deaf_and_a_hanging_candidate_come_to_an_end() {
    let bed = Bed::live().await;
    for (version, behaviour) in [("2", "deaf"), ("3", "hang")] {
        bed.upload(version, behaviour);
        let outcome = bed.switch().await;
        assert!(matches!(outcome, Outcome::NotHealthy { .. }), "{outcome:?}");
    }
    bed.upload("4", "");
    assert_eq!(done(&bed.switch().await).1.number, 4);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_is_told_that_it_comes_up() {
    let bed = Bed::live().await;
    bed.upload("2", "hang");
    bed.until("it is tried", |view| matches!(view.deployment.phase(), Phase::Trying { .. })).await;
    let outcome = within(bed.ask(switch_to(None), Wait::Moved).await).await.unwrap();
    assert!(matches!(outcome, Outcome::Busy(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_before_anything_began_wants_nothing_any_more() {
    let bed = Bed::ready().await;
    // A program that is not whole is waited for.
    fs::write(bed.app.release_dir.join("web"), "").unwrap();
    let asked = bed.ask(switch_to(None), Wait::Drained).await;
    bed.until("it is incoming", |view| matches!(view.deployment.upload(), Upload::Incoming(_))).await;
    drop(asked);
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.upload("3", "");
    let view = bed.warm(3).await;
    assert!(super::is_active(&view, Colour::Green, 1), "nobody wants the switch any more");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_replaced_comes_back_from_the_store() {
    let bed = Bed::ready().await;
    done(&bed.switch().await);
    bed.upload("3", "");
    bed.warm(3).await;
    // r1 is not in a colour any more; it is the last good one.
    let outcome = bed.rollback().await;
    assert_eq!(done(&outcome).1.number, 1);
    assert!(bed.starts().last().unwrap().starts_with("start green-web r1-"));
}

#[tokio::test(start_paused = true)]
async fn changed_configuration_is_a_new_candidate() {
    let mut bed = Bed::live().await;
    bed.app.service.env.insert("COLOUR".into(), "red".into());
    let update = |app| bed.handle.update(app, "ann".into());
    let said = update(bed.app.clone()).await.unwrap().unwrap();
    assert!(said.contains("blue comes up as r2-"), "{said}");
    bed.warm(2).await;
    assert_eq!(bed.services.env(&bed.id(Colour::Blue), "COLOUR").as_deref(), Some("red"));
    assert_eq!(bed.services.env(&bed.id(Colour::Green), "COLOUR"), None);
    assert!(update(bed.app.clone()).await.unwrap().unwrap().contains("nothing in it needs a restart"));

    // One that can't be taken leaves the one before as it is.
    let mut wrong = bed.app.clone();
    wrong.service.env_file = Some(bed.root.path().join("absent"));
    let why = update(wrong).await.unwrap().unwrap_err();
    assert!(why.contains("absent"), "{why}");
    assert_eq!(bed.view().await.app.service.env_file, None);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_written_refuses_a_switch_and_not_the_way_back() {
    let bed = Bed::ready().await;
    done(&bed.switch().await);
    // Writing begins with this file.
    let in_the_way = bed.dir().join(".state.json.new");
    fs::create_dir(&in_the_way).unwrap();
    let outcome = bed.switch().await;
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("written to disk")), "{outcome:?}");
    assert_eq!(bed.route.pointing_at().unwrap().colour, Colour::Blue);
    bed.steady_on(Colour::Blue, 2).await;
    assert_eq!(done(&bed.rollback().await).1.number, 1);

    fs::remove_dir(&in_the_way).unwrap();
    bed.steady_on(Colour::Green, 1).await;
    assert_eq!(done(&bed.switch().await).1.number, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_deleted() {
    let bed = Bed::with(|app| {
        auto(app);
        app.release.keep = 1;
    })
    .await;
    for number in 1..=4 {
        bed.upload(&number.to_string(), "");
        bed.until("it is live", |view| {
            matches!(view.deployment.phase(), Phase::Steady { active, .. } if active.release.number == number)
        })
        .await;
    }
    let view = bed.view().await;
    let known: Vec<u32> = view.catalogue.releases.iter().map(|release| release.id.number).collect();
    assert_eq!(known, [3, 4], "the active one, and the way back");
    let mut stored: Vec<_> = fs::read_dir(bed.dir().join("releases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    stored.sort();
    let expected: Vec<String> =
        view.catalogue.releases.iter().map(|release| release.id.to_string()).collect();
    assert_eq!(stored, expected);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_active_service_is_told() {
    let bed = Bed::live().await;
    let mut notices = bed.handle.notices();
    bed.services.crash(&bed.id(Colour::Green));
    let notice = within(notices.recv()).await.unwrap();
    assert!(format!("{notice:?}").contains("SIGKILL"), "{notice:?}");
    let view = bed.until("it is in the status", |view| view.last_exits.green.is_some()).await;
    assert!(matches!(view.deployment.phase(), Phase::Steady { standby: Standby::Empty, .. }));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_it_replaces_takes_nothing_from_a_candidates_time() {
    let bed = Bed::with(|app| app.health.deadline = Duration::from_secs(5)).await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed.upload("2", "stubborn");
    bed.warm(2).await;
    bed.upload("3", "");
    bed.warm(3).await;
}
