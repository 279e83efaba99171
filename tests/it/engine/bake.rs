//! What got the traffic has to prove itself.

use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Standby, Wait};
use dorc::model::release::Verdict;
use dorc::routing::Route;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Bed, deploy, done, switch_to, within};

/// One whose second release just got the traffic, and who waits for it to be proved.
async fn baking() -> (Bed, oneshot::Receiver<Outcome>) {
    let bed = Bed::ready().await;
    let asked = bed.ask(deploy("r2", false), Wait::Baked).await;
    bed.until("it bakes", |view| matches!(view.deployment.phase(), Phase::Baking { .. })).await;
    (bed, asked)
}

/// Green has the traffic again, and the reason is known everywhere.
async fn is_back(bed: &Bed, asked: oneshot::Receiver<Outcome>, reason: &str) {
    let outcome = within(asked).await.unwrap();
    let Outcome::RolledBack { failed, failure, active } = &outcome else { panic!("{outcome:?}") };
    assert_eq!((failed.release.number, active.release.number), (2, 1));
    assert!(failure.reason.contains(reason), "{failure:?}");
    assert_eq!(failure.log, ["blue-web speaks"]);
    assert_eq!(bed.route.pointing_at().unwrap().colour, Colour::Green);
    let view = bed.steady_on(Colour::Green, 1).await;
    let phase = view.deployment.phase();
    assert!(matches!(phase, Phase::Steady { standby: Standby::Failed(..), .. }), "{phase:?}");
    assert!(matches!(view.catalogue.find("r2").unwrap().verdict, Verdict::Failed(_)));
    assert_eq!(bed.services.calls().last().unwrap(), "stop blue-web");
}

#[tokio::test(start_paused = true)]
async fn what_stays_healthy_is_proved_when_the_time_is_over() {
    let begin = Instant::now();
    let (bed, asked) = baking().await;
    let outcome = within(asked).await.unwrap();
    assert_eq!(done(&outcome).0, Colour::Blue);
    assert!(begin.elapsed() > Duration::from_secs(30) && begin.elapsed() < Duration::from_secs(40));
    bed.services.crash(&bed.id(Colour::Blue));
    sleep(Duration::from_secs(5)).await;
    bed.steady_on(Colour::Blue, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_bake_goes_back_by_itself() {
    let (bed, asked) = baking().await;
    bed.services.crash(&bed.id(Colour::Blue));
    is_back(&bed, asked, "killed by SIGKILL").await;
    // The same bytes again are not tried by themselves.
    let starts = bed.starts().len();
    bed.upload("1", "");
    bed.upload("2", "");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.starts().len(), starts);
    // Whoever names it may.
    assert_eq!(done(&bed.deploy("r2").await).0, Colour::Blue);
}

#[tokio::test(start_paused = true)]
async fn an_illness_in_the_bake_goes_back_by_itself() {
    let (bed, asked) = baking().await;
    sleep(Duration::from_secs(5)).await;
    bed.services.sicken(&bed.id(Colour::Blue));
    is_back(&bed, asked, "not healthy").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_old_connections_drain_goes_back_as_well() {
    let bed = Bed::ready().await;
    let busy = bed.route.connect(true).unwrap();
    let asked = bed.ask(switch_to(None), Wait::Drained).await;
    bed.until("it drains", |view| matches!(view.deployment.phase(), Phase::Draining { .. })).await;
    bed.services.crash(&bed.id(Colour::Blue));
    is_back(&bed, asked, "killed by SIGKILL").await;
    assert!(busy.is_open(), "it is where it was");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_restarts_goes_on_watching() {
    let (mut bed, _) = baking().await;
    bed.restart().await;
    bed.until("it bakes", |view| matches!(view.deployment.phase(), Phase::Baking { .. })).await;
    bed.services.crash(&bed.id(Colour::Blue));
    bed.steady_on(Colour::Green, 1).await;
    bed.restart().await;
    bed.steady_on(Colour::Green, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_way_back_has_nothing_to_prove() {
    let (bed, asked) = baking().await;
    assert_eq!(done(&bed.switch().await).0, Colour::Green);
    assert!(matches!(within(asked).await.unwrap(), Outcome::Superseded(_)));
    bed.services.crash(&bed.id(Colour::Green));
    sleep(Duration::from_secs(5)).await;
    bed.steady_on(Colour::Green, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_meanwhile_waits_and_the_newest_wins() {
    let (bed, first) = baking().await;
    bed.upload("3", "");
    bed.until("it waits", |view| view.deployment.queued().is_some_and(|id| id.number == 3)).await;
    let third = bed.ask(deploy("r3", false), Wait::Baked).await;
    bed.upload("4", "");
    bed.until("it is taken", |view| view.catalogue.find("r4").is_some()).await;
    let fourth = bed.ask(deploy("r4", false), Wait::Baked).await;
    assert!(matches!(within(third).await.unwrap(), Outcome::Superseded(_)));
    assert_eq!(done(&within(first).await.unwrap()).1.number, 2);
    assert_eq!(done(&within(fourth).await.unwrap()).1.number, 4);
    assert_eq!(bed.starts().len(), 3, "r3 had its chance");
}

#[tokio::test(start_paused = true)]
async fn a_release_can_be_made_ready_without_a_move() {
    let bed = Bed::live().await;
    bed.upload("2", "");
    bed.warm(2).await;
    for release in ["r2", "r1"] {
        let ready = within(bed.ask(deploy(release, true), Wait::Drained).await).await.unwrap();
        assert!(matches!(ready, Outcome::Ready(_)), "{ready:?}");
    }
    bed.steady_on(Colour::Green, 1).await;
}

/// One whose second release proved itself long since and ends so often, with this pause after each end.
async fn ending(failover: bool, times: u32, pause: Duration) -> Bed {
    let bed = Bed::with(|app| {
        app.switch.failover = failover;
        app.switch.bake = Duration::ZERO;
    })
    .await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed.upload("2", "");
    bed.warm(2).await;
    bed.switch().await;
    bed.warm(1).await;
    for _ in 0..times {
        bed.services.crash(&bed.id(Colour::Blue));
        sleep(pause).await;
    }
    bed
}

#[tokio::test(start_paused = true)]
async fn what_keeps_ending_later_is_left_where_that_is_wanted() {
    let bed = ending(true, 3, Duration::from_secs(10)).await;
    let view = bed.steady_on(Colour::Green, 1).await;
    let phase = view.deployment.phase();
    assert!(matches!(phase, Phase::Steady { standby: Standby::Failed(..), .. }), "{phase:?}");
    let Verdict::Failed(failure) = &view.catalogue.find("r2").unwrap().verdict else { panic!("{phase:?}") };
    assert!(failure.reason.contains("keeps ending"), "{failure:?}");
    // There is nothing left to go to.
    for _ in 0..9 {
        bed.services.crash(&bed.id(Colour::Green));
        sleep(Duration::from_secs(1)).await;
    }
    bed.steady_on(Colour::Green, 1).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_not_left_for_one_that_is_no_better() {
    let bed = ending(true, 2, Duration::from_secs(1)).await;
    bed.services.sicken(&bed.id(Colour::Green));
    for _ in 0..5 {
        bed.services.crash(&bed.id(Colour::Blue));
        sleep(Duration::from_secs(5)).await;
    }
    let view = bed.steady_on(Colour::Blue, 2).await;
    assert!(!matches!(view.catalogue.find("r2").unwrap().verdict, Verdict::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn what_ends_now_and_then_or_must_not_be_left_stays() {
    for bed in [
        ending(true, 2, Duration::from_secs(1)).await,
        ending(true, 9, Duration::from_secs(40)).await,
        ending(false, 9, Duration::from_secs(1)).await,
    ] {
        bed.steady_on(Colour::Blue, 2).await;
    }
}
