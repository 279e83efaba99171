//! Old connections.

use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Tally, Wait};
use tokio::time::Instant;

use super::{Bed, done, switch_to, within};

async fn draining(bed: &Bed) {
    bed.until("it drains", |view| matches!(view.deployment.phase(), Phase::Draining { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_counts_what_became_of_the_connections() {
    let bed = Bed::ready().await;
    let ending = bed.route.connect(true).unwrap();
    let (quiet, busy) = (bed.route.connect(false).unwrap(), bed.route.connect(true).unwrap());
    let begin = Instant::now();
    let asked = bed.ask(switch_to(None), Wait::Drained).await;
    draining(&bed).await;
    drop(ending);
    let outcome = within(asked).await.unwrap();
    assert!(!quiet.is_open() && !busy.is_open());
    let Outcome::Done { tally, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(tally, Some(Tally { finished: 1, quiet: 1, cut: 1 }));
    assert!(begin.elapsed() >= Duration::from_secs(30) && begin.elapsed() < Duration::from_secs(35));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_is_answered_as_soon_as_traffic_has_moved() {
    let bed = Bed::ready().await;
    let busy = bed.route.connect(true).unwrap();
    let outcome = within(bed.ask(switch_to(None), Wait::Moved).await).await.unwrap();
    assert_eq!(done(&outcome).0, Colour::Blue);
    assert!(busy.is_open());
    // And back at once, although it still drains.
    assert_eq!(done(&within(bed.ask(switch_to(None), Wait::Moved).await).await.unwrap()).0, Colour::Green);
    assert!(busy.is_open(), "it is on the active service again");
}

#[tokio::test(start_paused = true)]
async fn an_upload_during_a_drain_waits_and_the_newest_wins() {
    let bed = Bed::ready().await;
    let busy = bed.route.connect(true).unwrap();
    let asked = bed.ask(switch_to(None), Wait::Drained).await;
    draining(&bed).await;
    for number in [3, 4] {
        bed.upload(&number.to_string(), "");
        bed.until("it waits", |view| view.deployment.queued().is_some_and(|id| id.number == number)).await;
    }
    assert!(busy.is_open());
    assert_eq!(bed.starts().len(), 2, "nothing is replaced while it drains");
    drop(busy);
    done(&within(asked).await.unwrap());
    bed.warm(4).await;
    assert_eq!(bed.starts().len(), 3, "r3 had its chance");
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_holds_for_the_drain_that_is_under_way() {
    let mut bed = Bed::ready().await;
    bed.app.switch.drain = None;
    bed.handle.update(bed.app.clone(), "ann".into()).await.unwrap().unwrap();
    let busy = bed.route.connect(true).unwrap();
    let asked = bed.ask(switch_to(None), Wait::Drained).await;
    draining(&bed).await;
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert!(busy.is_open(), "for ever is for ever");
    bed.app.switch.drain = Some(Duration::from_secs(1));
    bed.handle.update(bed.app.clone(), "ann".into()).await.unwrap().unwrap();
    done(&within(asked).await.unwrap());
    assert!(!busy.is_open());
}
