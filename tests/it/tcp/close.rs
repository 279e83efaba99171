//! Connections that are told to end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::routing::tcp::Plane;
use dorc::routing::{Route, Which};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATIENCE, Service, Setup, ask, expect, until, within};

const AT_ONCE: Which = Which::Quiet(Duration::ZERO);

#[tokio::test]
async fn quiet_ones_end_and_unanswered_ones_go_on() {
    // Answers only when it is told to.
    let (say, _) = tokio::sync::broadcast::channel::<()>(1);
    let told = say.clone();
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let service = Service::start(move |mut socket| {
        let (mut told, heard) = (told.subscribe(), heard.clone());
        async move {
            socket.write_all(b"hello").await.unwrap();
            if socket.read_u8().await.is_err() {
                return;
            }
            heard.send(()).await.unwrap();
            told.recv().await.unwrap();
            socket.write_all(b"answer").await.unwrap();
            let _ = socket.read_u8().await;
        }
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let (mut quiet, mut waiting) = (setup.connect().await, setup.connect().await);
    expect(&mut quiet, "hello").await;
    expect(&mut waiting, "hello").await;
    waiting.write_all(b"?").await.unwrap();
    within(hears.recv()).await.unwrap();
    assert_eq!(setup.route.close(Colour::Blue, Which::Quiet(Duration::from_secs(60))).await, 0);
    assert_eq!(setup.route.close(Colour::Green, AT_ONCE).await, 0);
    setup.route.close(Colour::Blue, AT_ONCE).await;
    assert_eq!(within(quiet.read(&mut [0; 1])).await.unwrap(), 0, "an orderly end");
    until(async || setup.route.open_connections(Colour::Blue).await == 1).await;
    say.send(()).unwrap();
    expect(&mut waiting, "answer").await;
    until(async || setup.route.close(Colour::Blue, AT_ONCE).await == 1).await;
    assert_eq!(within(waiting.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn all_means_all_and_a_cut_answer_is_a_reset() {
    let service = Service::start(|mut socket| async move { while socket.read_u8().await.is_ok() {} }).await;
    let setup = Setup::pointing_at(&service).await;
    let mut quiet = setup.connect().await;
    let mut waiting = setup.connect().await;
    waiting.write_all(b"?").await.unwrap();
    until(async || setup.route.open_connections(Colour::Blue).await == 2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(setup.route.close(Colour::Blue, Which::All).await, 2);
    assert_eq!(within(quiet.read(&mut [0; 1])).await.unwrap(), 0);
    assert_eq!(within(waiting.read(&mut [0; 1])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}

#[tokio::test]
async fn the_answers_of_close_add_up_to_what_was_closed() {
    let service = Service::named("here").await;
    let setup = Setup::pointing_at(&service).await;
    let route = setup.route.clone();
    let done = Arc::new(AtomicBool::new(false));
    let closer = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut closed = 0;
            while !done.load(Relaxed) {
                closed += route.close(Colour::Blue, Which::Quiet(Duration::from_millis(1))).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            closed
        }
    });
    let mut ended = 0;
    for pause in (1..20).cycle().map(Duration::from_millis).take(100) {
        let mut client = setup.connect().await;
        loop {
            let mut name = [0; 4];
            // Whoever asks in the moment of the close gets nothing, and never a piece of an answer.
            if client.write_all(b"who?\n").await.is_err()
                || within(client.read(&mut name)).await.unwrap_or(0) == 0
            {
                break;
            }
            assert_eq!(&name, b"here");
            tokio::time::sleep(pause).await;
        }
        ended += 1;
    }
    done.store(true, Relaxed);
    assert_eq!(closer.await.unwrap(), ended);
}

#[tokio::test]
async fn finishing_waits_for_answers_and_leaves_the_socket_to_the_successor() {
    let service = Service::start(|mut socket| async move {
        socket.read_u8().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.write_all(b"answer").await.unwrap();
        let _ = socket.read_u8().await;
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let (quiet, mut waiting) = (setup.connect().await, setup.connect().await);
    waiting.write_all(b"?").await.unwrap();
    until(async || setup.route.open_connections(Colour::Blue).await == 2).await;
    let store = setup.route.listeners();
    let finish = tokio::spawn({
        let route = setup.route.clone();
        async move { route.finish(PATIENCE).await }
    });
    expect(&mut waiting, "answer").await;
    assert_eq!(within(finish).await.unwrap(), 0);
    drop(quiet);
    // One that comes now is accepted by the successor.
    let mut late = setup.connect().await;
    late.write_all(b"?").await.unwrap();
    let address = setup.address;
    drop(setup);
    let successor = Setup::with_hold(PATIENCE);
    let adopted = store.into_iter().map(|(_, socket)| socket.into()).collect();
    let route = successor.plane.open(&[address], PATIENCE, adopted).unwrap();
    let target = dorc::routing::Target::new(Colour::Blue, service.address);
    route.point_at(Some(target)).await.unwrap();
    expect(&mut late, "answer").await;
}

#[tokio::test]
async fn whoever_comes_in_the_moment_of_the_end_is_answered_before_it_or_by_the_successor() {
    let service = Service::echo().await;
    let mut setup = Setup::pointing_at(&service).await;
    let address = setup.address;
    for _ in 0..200 {
        let store = setup.route.listeners().into_iter().map(|(_, socket)| socket.into()).collect();
        let client = tokio::spawn(async move {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            ask(&mut client, "hello", "hello").await;
        });
        // It is connected now, and the threads of the plane are about to notice.
        tokio::task::yield_now().await;
        assert_eq!(setup.route.finish(PATIENCE).await, 0);
        drop(setup);
        let plane = Plane::start(2).unwrap();
        let route = plane.open(&[address], PATIENCE, store).unwrap();
        setup = Setup { route, plane, address };
        setup.point_at(Colour::Blue, service.address).await;
        client.await.unwrap();
    }
}

#[tokio::test]
async fn finishing_has_a_deadline() {
    let service = Service::start(|mut socket| async move { while socket.read_u8().await.is_ok() {} }).await;
    let setup = Setup::pointing_at(&service).await;
    let mut waiting = setup.connect().await;
    waiting.write_all(b"?").await.unwrap();
    until(async || setup.route.open_connections(Colour::Blue).await == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(setup.route.finish(Duration::from_millis(300)).await, 1);
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}

#[tokio::test]
async fn closing_down_ends_everything() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
    let _elsewhere = setup.route.listeners();
    let route = setup.route.clone();
    route.close_down();
    assert_eq!(within(client.read(&mut [0; 1])).await.unwrap(), 0);
    let refused = tokio::net::TcpStream::connect(setup.address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
