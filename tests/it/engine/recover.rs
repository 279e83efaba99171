//! The engine ends at any moment, and another one takes over.

use std::fs;
use std::time::Duration;

use dorc::engine::Wish;
use dorc::model::colour::Colour;
use dorc::model::deployment::{Phase, Standby, Wait};
use dorc::routing::Route;

use super::{Bed, done, is_active, switch_to};

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_untouched() {
    let mut bed = Bed::ready().await;
    let calls = bed.services.calls();
    bed.restart().await;
    bed.warm(2).await;
    assert_eq!(bed.services.calls(), calls);
    assert_eq!(done(&bed.switch().await).1.number, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_attempt_is_made_again() {
    let mut bed = Bed::live().await;
    bed.upload("2", "hang");
    let view = bed.until("it is tried", |view| matches!(view.deployment.phase(), Phase::Trying { .. })).await;
    let release = view.catalogue.newest().unwrap().id.to_string();
    fs::write(bed.dir().join("releases").join(release).join("behaviour"), "").unwrap();
    bed.restart().await;
    let view = bed.warm(2).await;
    assert!(is_active(&view, Colour::Green, 1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_was_cut_short_is_over() {
    let mut bed = Bed::ready().await;
    let busy = bed.route.connect(true).unwrap();
    drop(bed.ask(switch_to(None), Wait::Drained).await);
    bed.until("it drains", |view| matches!(view.deployment.phase(), Phase::Draining { .. })).await;
    bed.restart().await;
    let view = bed.steady_on(Colour::Blue, 2).await;
    assert!(
        matches!(view.deployment.phase(), Phase::Steady { standby: Standby::Warm(old), .. } if old.number == 1)
    );
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_decided_and_not_done_is_settled_by_where_the_route_points() {
    let mut bed = Bed::ready().await;
    bed.route.hang(true);
    drop(bed.ask(switch_to(None), Wait::Moved).await);
    bed.until("the decision", |view| format!("{:?}", view.deployment.phase()).contains("Moving")).await;
    bed.route.hang(false);
    bed.restart().await;
    let view = bed.warm(2).await;
    assert!(is_active(&view, Colour::Green, 1));
    assert_eq!(bed.route.pointing_at().unwrap().colour, Colour::Green);

    // A route that did not outlive the daemon goes to what was decided.
    bed.route.hang(true);
    drop(bed.ask(switch_to(None), Wait::Moved).await);
    bed.until("the decision", |view| format!("{:?}", view.deployment.phase()).contains("Moving")).await;
    bed.route.hang(false);
    bed.route.point_at(None).await.unwrap();
    bed.restart().await;
    bed.steady_on(Colour::Blue, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_does_not_answer_changes_nothing() {
    let bed = Bed::ready().await;
    bed.route.hang(true);
    let outcome = bed.switch().await;
    assert!(format!("{outcome:?}").contains("did not answer in time"), "{outcome:?}");
    bed.route.hang(false);
    bed.steady_on(Colour::Green, 1).await;
    assert_eq!(done(&bed.switch().await).1.number, 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_both_come_up_again() {
    let mut bed = Bed::ready().await;
    bed.services.power_off();
    bed.route.point_at(None).await.unwrap();
    bed.restart().await;
    let view = bed.warm(2).await;
    assert!(is_active(&view, Colour::Green, 1));
    bed.until("both run", |view| view.running.green.is_some() && view.running.blue.is_some()).await;
    assert_eq!(bed.route.pointing_at().unwrap().address.port(), view.ports.green);
}

#[tokio::test(start_paused = true)]
async fn an_active_service_that_cannot_be_started_is_tried_until_it_can() {
    let mut bed = Bed::live().await;
    let release = bed.view().await.catalogue.newest().unwrap().id.to_string();
    let behaviour = bed.dir().join("releases").join(release).join("behaviour");
    fs::write(&behaviour, "exit 3").unwrap();
    bed.services.power_off();
    bed.restart().await;
    let view = bed.until("it is told", |view| view.last_exits.green.is_some()).await;
    assert!(view.last_exits.green.unwrap().1.contains("exit status 3"));
    fs::write(&behaviour, "").unwrap();
    bed.until("it runs", |view| view.running.green.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_candidate_does_not_keep_the_active_service_from_coming_up() {
    let mut bed = Bed::ready().await;
    let active = bed.view().await.deployment.active().unwrap().release.to_string();
    let behaviour = bed.dir().join("releases").join(active).join("behaviour");
    fs::write(&behaviour, "exit 3").unwrap();
    bed.services.power_off();
    bed.restart().await;
    bed.until("it is tried", |view| view.last_exits.green.is_some()).await;
    bed.warm(2).await;
    fs::write(&behaviour, "").unwrap();
    bed.until("it runs", |view| view.running.green.is_some()).await;
}

/// Both state files are gone while services run.
fn lose_the_state(bed: &Bed) {
    for file in ["state.json", "state.json.previous"] {
        fs::remove_file(bed.dir().join(file)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_state_is_found_again_in_what_runs() {
    for switched in [false, true] {
        let mut bed = Bed::ready().await;
        if switched {
            done(&bed.switch().await);
        }
        let (before, calls) = (bed.view().await, bed.services.calls());
        bed.handle.end().await;
        lose_the_state(&bed);
        bed.route.point_at(None).await.unwrap();
        bed.restart().await;
        let (colour, number) = if switched { (Colour::Blue, 2) } else { (Colour::Green, 1) };
        let view = bed.steady_on(colour, number).await;
        assert_eq!(view.ports, before.ports);
        assert_eq!(bed.route.pointing_at().unwrap().address.port(), before.ports[colour]);
        assert_eq!(bed.services.calls(), calls, "nothing is stopped, nothing is started");
        // The upload that is still there is known, and the way back too.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(bed.view().await.catalogue.releases.len(), 2);
        assert_eq!(done(&bed.switch().await).0, colour.other());
        bed.upload("3", "");
        bed.warm(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_was_removed_finds_its_releases_again() {
    let mut bed = Bed::ready().await;
    bed.handle.remove(false).await.unwrap().unwrap();
    assert!(!bed.dir().join("state.json").exists());
    assert_eq!(bed.view_running(), 0);
    bed.restart().await;
    // The upload that is there is r2, known by its content; only r1 waits to be asked for.
    bed.steady_on(Colour::Green, 2).await;
    bed.upload("3", "");
    bed.warm(3).await;
    let to = Wish::Rollback { to: Some("r1".into()), if_active: None };
    assert_eq!(done(&super::within(bed.ask(to, Wait::Drained).await).await.unwrap()).1.number, 1);

    bed.handle.remove(true).await.unwrap().unwrap();
    assert!(!bed.dir().exists());
}

impl Bed {
    fn view_running(&self) -> usize {
        Colour::BOTH
            .into_iter()
            .filter(|colour| self.services.env(&self.id(*colour), "PORT").is_some())
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn so_is_that_of_the_way_back() {
    let bed = Bed::ready().await;
    bed.services.crash(&bed.id(Colour::Blue));
    let view = bed.until("it is told", |view| view.last_exits.blue.is_some()).await;
    assert!(view.last_exits.green.is_none());
    let history = fs::read_to_string(bed.dir().join("history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains(r#""what":"exit","to":"blue r2-"#), "{history}");
}
