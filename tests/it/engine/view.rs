//! What is told of an app.

use dorc::engine::View;
use dorc::model::colour::Colour;
use futures_util::future::join_all;
use tokio::task::yield_now;

use super::Bed;

#[tokio::test(start_paused = true)]
async fn whoever_asks_at_the_same_time_shares_a_look() {
    let bed = Bed::ready().await;
    let before = bed.services.asked();
    for view in join_all((0..50).map(|_| bed.handle.view())).await {
        let running = view.unwrap().running;
        assert!(running.blue.is_some() && running.green.is_some(), "{running:?}");
    }
    let looks = (bed.services.asked() - before) / Colour::BOTH.len();
    assert!((1..=3).contains(&looks), "{looks} looks");
}

#[tokio::test(start_paused = true)]
async fn a_look_is_not_older_than_the_question() {
    let bed = Bed::live().await;
    let restarts = |view: View| view.running.green.unwrap().restarts;
    let (handle, before) = (bed.handle.clone(), bed.services.asked());
    let early = tokio::spawn(async move { handle.view().await.unwrap() });
    while bed.services.asked() < before + Colour::BOTH.len() {
        yield_now().await;
    }
    bed.services.crash(&bed.id(Colour::Green));
    assert_eq!(restarts(bed.view().await), 1);
    assert_eq!(restarts(early.await.unwrap()), 0);
}
