//! Uploads by a command beside those through the release directory. Time is not paused: a thread receives them.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use dorc::engine::View;
use dorc::engine::receive::{NotReceived, Then, Uploaded};
use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Standby, Wait};
use dorc::model::release::Digest;
use dorc::services::Services;

use super::{Bed, deploy, done, is_active, within};

/// A release of that version as an archive.
fn archive(version: &str) -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    let made =
        "cd $1; printf %s \"$2\" >version; : >behaviour; echo '#!/bin/sh' >web; chmod 755 web; tar -c .";
    let output = Command::new("sh").args(["-ec", made, "sh"]).arg(root.path()).arg(version).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

async fn receive(bed: &Bed, stream: &[u8], label: Option<&str>) -> Result<Uploaded, NotReceived> {
    receive_then(bed, stream, label, Then::ComesUp).await
}

async fn receive_then(
    bed: &Bed,
    stream: &[u8],
    label: Option<&str>,
    then: Then,
) -> Result<Uploaded, NotReceived> {
    let digest = Digest(*blake3::hash(stream).as_bytes());
    let mut receiving = bed.handle.receive(digest, 0).await?;
    receiving.push(Bytes::copy_from_slice(stream)).await?;
    receiving.finish(label.map(|label| label.parse().unwrap()), then, "ann".into()).await
}

async fn quick() -> Bed {
    let bed = Bed::with(|app| {
        app.release.settle = Duration::from_millis(50);
        app.health.interval = Duration::from_millis(20);
        app.switch.bake = Duration::ZERO;
    })
    .await;
    bed.upload("1", "");
    bed.steady_on(Colour::Green, 1).await;
    bed
}

#[tokio::test]
async fn an_upload_by_a_command_comes_up_as_one_through_the_directory() {
    let bed = quick().await;
    let uploaded = receive(&bed, &archive("2"), Some("v2")).await.unwrap();
    assert_eq!((uploaded.release.number, uploaded.files), (2, 3));
    assert!(uploaded.next.contains("comes up in blue"), "{}", uploaded.next);
    let view = bed.warm(2).await;
    assert_eq!(view.catalogue.newest().unwrap().label.as_ref().unwrap().as_str(), "v2");

    // The same content is that release, whichever way it comes, and keeps its name until it gets another one.
    bed.upload("2", "");
    let again = receive(&bed, &archive("2"), None).await.unwrap();
    assert_eq!((again.release.number, again.label.unwrap().as_str()), (2, "v2"));
    assert!(again.next.contains("is ready in blue"), "{}", again.next);
    let active = receive(&bed, &archive("1"), Some("v1")).await;
    let active = active.unwrap();
    assert_eq!((active.release.number, active.label.unwrap().as_str()), (1, "v1"));
    assert!(active.next.contains("is active already, in green"), "{}", active.next);
}

#[tokio::test]
async fn what_is_only_stored_comes_up_once_it_is_asked_for() {
    let bed = quick().await;
    let uploaded = receive_then(&bed, &archive("2"), Some("v2"), Then::IsAskedFor).await.unwrap();
    assert!(uploaded.next.contains("dorc deploy web --release r2"), "{}", uploaded.next);
    let known = receive_then(&bed, &archive("2"), None, Then::IsAskedFor).await.unwrap();
    assert_eq!(known.release, uploaded.release);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let view = bed.view().await;
    let idle = matches!(view.deployment.phase(), Phase::Steady { standby: Standby::Empty, .. });
    assert!(idle && view.catalogue.newest().unwrap().id == uploaded.release, "{:?}", view.deployment);
    assert_eq!(done(&bed.deploy("r2").await), (Colour::Blue, uploaded.release));
}

#[tokio::test]
async fn a_first_release_that_is_only_to_be_ready_waits_for_the_switch() {
    let mut bed = Bed::with(|app| app.health.interval = Duration::from_millis(20)).await;
    receive_then(&bed, &archive("1"), None, Then::IsAskedFor).await.unwrap();
    let prepared = within(bed.ask(deploy("r1", true), Wait::Drained).await).await.unwrap();
    assert!(matches!(prepared, Outcome::Ready(live) if live.colour == Colour::Green), "{prepared:?}");
    let is_ready = |view: View| {
        let is_warm = matches!(view.deployment.phase(), Phase::Vacant { standby: Standby::Warm(_) });
        assert!(is_warm && view.running.green.is_some(), "{:?}", view.deployment);
    };
    is_ready(bed.view().await);
    bed.restart().await;
    is_ready(bed.view().await);
    assert_eq!(bed.starts().len(), 1, "it is taken as it runs");
    assert_eq!(done(&bed.switch().await).0, Colour::Green);
    assert!(matches!(bed.view().await.deployment.phase(), Phase::Steady { .. }));
}

#[tokio::test]
async fn a_first_release_that_was_ready_and_is_gone_gets_no_traffic_by_itself() {
    let mut bed = Bed::with(|app| app.health.interval = Duration::from_millis(20)).await;
    receive_then(&bed, &archive("1"), None, Then::IsAskedFor).await.unwrap();
    within(bed.ask(deploy("r1", true), Wait::Drained).await).await.unwrap();
    bed.handle.end().await;
    bed.services.stop(&bed.id(Colour::Green)).await.unwrap();
    bed.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let view = bed.view().await;
    assert!(matches!(view.deployment.phase(), Phase::Vacant { standby: Standby::Empty }));
    assert_eq!(done(&bed.deploy("r1").await).0, Colour::Green);
}

#[tokio::test]
async fn a_refused_upload_changes_nothing() {
    let bed = quick().await;
    let before = bed.view().await;
    let refused = receive(&bed, b"nonsense", None).await;
    assert!(matches!(refused, Err(NotReceived::Refused(why)) if why.contains("not a whole tar archive")));
    let after = bed.view().await;
    assert_eq!((before.deployment, before.catalogue), (after.deployment, after.catalogue));
    assert_eq!(receive(&bed, &archive("2"), None).await.unwrap().release.number, 2);
}

/// 2 is active and 3 the newest, also once the intake has looked.
async fn stays(bed: &Bed) {
    tokio::time::sleep(Duration::from_millis(400)).await;
    let view = bed.view().await;
    assert!(is_active(&view, Colour::Blue, 2));
    assert_eq!(view.catalogue.newest().unwrap().id.number, 3);
    assert_eq!(bed.starts().len(), 3);
}

#[tokio::test]
async fn what_lies_in_the_release_directory_does_not_come_back() {
    let mut bed = quick().await;
    receive(&bed, &archive("2"), None).await.unwrap();
    bed.warm(2).await;
    assert_eq!(done(&bed.switch().await).1.number, 2);
    receive(&bed, &archive("3"), None).await.unwrap();
    bed.warm(3).await;

    // The directory has 1 still. Neither a restart nor a changed app file nor files that look new make it the newest.
    bed.restart().await;
    stays(&bed).await;
    bed.app.release.settle = Duration::from_millis(60);
    bed.handle.update(bed.app.clone(), "ann".into()).await.unwrap().unwrap();
    stays(&bed).await;
    bed.handle.end().await;
    bed.upload("1", "");
    bed.restart().await;
    stays(&bed).await;

    // Who uploads it anew means it.
    bed.upload("1", "");
    bed.warm(1).await;
}
