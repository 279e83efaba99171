//! A freeze: nothing new is taken into service, and the way back stays open.

use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::deployment::Outcome;
use tokio::time::sleep;

use super::{Bed, done};

async fn freeze(bed: &Bed, why: Option<&str>) -> Result<String, String> {
    bed.handle.freeze(why.map(str::to_owned), "ann".into()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_frozen_app_takes_nothing_new_until_it_is_thawed() {
    let mut bed = Bed::ready().await;
    freeze(&bed, Some("the fair is on")).await.unwrap();
    bed.restart().await;
    let Outcome::Busy(why) = bed.switch().await else { panic!("it switched") };
    assert!(
        why.contains("by ann") && why.contains("the fair is on") && why.contains("dorc thaw web"),
        "{why}"
    );
    bed.upload("3", "");
    bed.until("it waits", |view| view.deployment.queued().is_some_and(|id| id.number == 3)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.starts().len(), 2);
    assert!(freeze(&bed, None).await.unwrap().contains("the fair is on"));
    bed.warm(3).await;
    assert_eq!(freeze(&bed, None).await.unwrap(), "it was not frozen");
}

#[tokio::test(start_paused = true)]
async fn the_way_back_stays_open() {
    let bed = Bed::ready().await;
    bed.switch().await;
    freeze(&bed, Some("the fair is on")).await.unwrap();
    assert_eq!(done(&bed.rollback().await).0, Colour::Green);
}
