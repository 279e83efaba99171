//! A share of the clients first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dorc::engine::Wish;
use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Wait};
use dorc::model::share::{Share, Step};
use dorc::routing::{Canary, Route, Target};
use tokio::time::sleep;

use super::{Bed, deploy, done, switch_to, within};

fn share(text: &str) -> Share {
    text.parse().unwrap()
}

fn client_of_the_canary() -> IpAddr {
    let target = Target::new(Colour::Blue, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let canary = Canary { target, share: share("10%") };
    let mut clients = (0..=255).map(|n| IpAddr::from(Ipv4Addr::new(127, 0, 0, n)));
    clients.find(|client| canary.takes(*client)).unwrap()
}

async fn canary(bed: &Bed, share: Option<Share>) -> Outcome {
    let wish = Wish::Switch { to: None, if_active: None, canary: Some(share) };
    within(bed.ask(wish, Wait::Drained).await).await.unwrap()
}

/// One whose second release gets a tenth of the clients.
async fn with_canary() -> Bed {
    let bed = Bed::ready().await;
    let outcome = canary(&bed, Some(share("10%"))).await;
    assert!(matches!(outcome, Outcome::Canary { .. }), "{outcome:?}");
    assert_eq!(bed.route.canary(), Some((Colour::Blue, share("10%"))));
    bed
}

#[tokio::test(start_paused = true)]
async fn a_switch_finishes_it() {
    let bed = with_canary().await;
    assert!(matches!(canary(&bed, Some(share("50%"))).await, Outcome::Canary { .. }));
    assert_eq!(bed.route.canary(), Some((Colour::Blue, share("50%"))));
    assert_eq!(done(&bed.switch().await).0, Colour::Blue);
    assert_eq!(bed.route.canary(), None);
    bed.until("it bakes", |view| matches!(view.deployment.phase(), Phase::Baking { .. })).await;
}

/// It may last for long: nobody is left waiting for its end.
#[tokio::test(start_paused = true)]
async fn what_else_is_wanted_has_to_come_after_it() {
    let bed = with_canary().await;
    bed.upload("3", "");
    bed.until("it waits", |view| view.deployment.queued().is_some_and(|id| id.number == 3)).await;
    let outcome = within(bed.ask(deploy("r3", false), Wait::Drained).await).await.unwrap();
    assert!(matches!(&outcome, Outcome::Busy(why) if why.contains("dorc switch")), "{outcome:?}");
    assert_eq!(done(&bed.switch().await).0, Colour::Blue);
    bed.warm(3).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_ends_it() {
    let bed = with_canary().await;
    assert_eq!(done(&bed.rollback().await).0, Colour::Green);
    assert_eq!(bed.route.canary(), None);
    bed.warm(2).await;
}

/// Whoever asks twice does not get what he wanted to get rid of.
#[tokio::test(start_paused = true)]
async fn what_had_only_a_share_is_no_way_back() {
    let bed = with_canary().await;
    let _slow = bed.route.connect_from(client_of_the_canary(), true).unwrap();
    let wish = Wish::Rollback { to: None, if_active: None };
    let outcome = within(bed.ask(wish.clone(), Wait::Moved).await).await.unwrap();
    assert!(
        matches!(outcome, Outcome::Done { active, before: Some(before), .. } if before == active),
        "{outcome:?}"
    );
    let outcome = within(bed.ask(wish, Wait::Moved).await).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Refused(why) if why.contains("nothing to roll back to")),
        "{outcome:?}"
    );
    // But it can be switched to, and has to prove itself then.
    let outcome = within(bed.ask(switch_to(None), Wait::Moved).await).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { active, .. } if active.colour == Colour::Blue), "{outcome:?}");
    assert!(bed.view().await.deployment.is_baking());
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_gets_nobody_any_more() {
    let bed = with_canary().await;
    bed.services.sicken(&bed.id(Colour::Blue));
    bed.until("it is over", |view| view.deployment.canary().is_none()).await;
    bed.steady_on(Colour::Green, 1).await;
    assert_eq!((bed.route.canary(), bed.route.pointing_at().unwrap().colour), (None, Colour::Green));
    assert_eq!(bed.services.calls().last().unwrap(), "stop blue-web");
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_a_restart_of_the_daemon() {
    let mut bed = with_canary().await;
    bed.restart().await;
    bed.until("it goes on", |view| view.deployment.canary().is_some()).await;
    assert_eq!(bed.route.canary(), Some((Colour::Blue, share("10%"))));
    bed.upload("3", "");
    bed.until("it waits", |view| view.deployment.queued().is_some_and(|id| id.number == 3)).await;
    assert_eq!(done(&bed.rollback().await).0, Colour::Green);
    bed.warm(3).await;
}

#[tokio::test(start_paused = true)]
async fn steps_follow_each_other_up_to_everything() {
    let step = |text, seconds| Step { share: share(text), time: Duration::from_secs(seconds) };
    let bed = Bed::with(|app| app.switch.canary = vec![step("5%", 2), step("25%", 3)]).await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed.upload("2", "");
    bed.warm(2).await;
    assert!(matches!(canary(&bed, None).await, Outcome::Canary { .. }));
    for (text, seconds) in [("5%", 2), ("25%", 3)] {
        assert_eq!(bed.route.canary(), Some((Colour::Blue, share(text))));
        sleep(Duration::from_secs(seconds) + Duration::from_millis(100)).await;
    }
    bed.steady_on(Colour::Blue, 2).await;
}

/// Steps of the configuration are not taken while nothing is to change.
#[tokio::test(start_paused = true)]
async fn while_it_is_frozen_its_share_does_not_grow() {
    let step = |text, seconds| Step { share: share(text), time: Duration::from_secs(seconds) };
    let bed = Bed::with(|app| app.switch.canary = vec![step("5%", 2)]).await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed.upload("2", "");
    bed.warm(2).await;
    assert!(matches!(canary(&bed, None).await, Outcome::Canary { .. }));
    bed.handle.freeze(Some("the fair is on".into()), "ann".into()).await.unwrap().unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(bed.route.canary(), Some((Colour::Blue, share("5%"))));
    bed.handle.freeze(None, "ann".into()).await.unwrap().unwrap();
    bed.steady_on(Colour::Blue, 2).await;
}

/// What is being uploaded is what is meant, as with a whole switch.
#[tokio::test(start_paused = true)]
async fn it_waits_for_the_upload() {
    let bed = Bed::ready().await;
    bed.upload("3", "");
    let outcome = canary(&bed, Some(share("10%"))).await;
    assert!(matches!(outcome, Outcome::Canary { canary, .. } if canary.release.number == 3), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_share_and_without_steps_there_is_none() {
    let bed = Bed::ready().await;
    let outcome = canary(&bed, None).await;
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("--canary 10%")), "{outcome:?}");
    bed.warm(2).await;
}
