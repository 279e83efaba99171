//! A pause: new connections wait, and what is open goes on.

use std::time::Duration;

use dorc::model::colour::Colour;
use tokio::time::sleep;

use super::{Bed, done};

async fn pause(bed: &Bed, time: Option<Duration>) -> Result<String, String> {
    bed.handle.pause(time, "ann".into()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn new_connections_wait_until_it_is_over() {
    let bed = Bed::ready().await;
    let open = bed.route.connect(true).unwrap();
    pause(&bed, Some(Duration::from_secs(30))).await.unwrap();
    assert!(bed.route.connect(true).is_none() && open.is_open());
    let (who, left) = bed.view().await.pause.unwrap();
    assert!(who == "ann" && left > Duration::from_secs(29), "{who} {left:?}");
    pause(&bed, None).await.unwrap();
    assert!(bed.route.connect(true).is_some());
    assert!(bed.view().await.pause.is_none());
    assert_eq!(pause(&bed, None).await.unwrap(), "it was not paused");
}

#[tokio::test(start_paused = true)]
async fn it_ends_by_itself() {
    let bed = Bed::live().await;
    pause(&bed, Some(Duration::from_secs(30))).await.unwrap();
    sleep(Duration::from_secs(31)).await;
    assert!(bed.route.connect(true).is_some());
    assert!(bed.view().await.pause.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_switch_meanwhile_is_where_they_go_then() {
    let bed = Bed::ready().await;
    pause(&bed, Some(Duration::from_secs(300))).await.unwrap();
    assert_eq!(done(&bed.switch().await).0, Colour::Blue);
    assert!(bed.route.connect(true).is_none());
    pause(&bed, None).await.unwrap();
    drop(bed.route.connect(true).unwrap());
    bed.steady_on(Colour::Blue, 2).await;
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_active_there_is_nothing_to_pause() {
    let bed = Bed::new().await;
    assert!(pause(&bed, Some(Duration::from_secs(1))).await.unwrap_err().contains("nothing is active"));
}
