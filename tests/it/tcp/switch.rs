//! The target moves under load.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use dorc::model::colour::Colour;
use dorc::routing::Route;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Service, Setup, ask, until, within};
use crate::ports::free_address;

#[tokio::test]
async fn none_of_thousands_of_connections_fails_while_the_target_moves() {
    let (blue, green) = (Service::named("blue!").await, Service::named("green").await);
    let setup = Arc::new(Setup::pointing_at(&blue).await);
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let (setup, done, answered) = (Arc::clone(&setup), Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                while !done.load(Relaxed) {
                    let mut client = setup.connect().await;
                    client.write_all(b"who?\n").await.unwrap();
                    let mut name = [0; 5];
                    client.read_exact(&mut name).await.unwrap();
                    assert!(&name == b"blue!" || &name == b"green");
                    answered.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    within(async {
        let mut colours = Colour::BOTH.into_iter().cycle();
        while answered.load(Relaxed) < 5_000 {
            let colour = colours.next().unwrap();
            let service = if colour == Colour::Blue { &blue } else { &green };
            setup.point_at(colour, service.address).await;
            // From this moment on nobody is sent to the other one.
            let mut client = setup.connect().await;
            ask(&mut client, "who?\n", if colour == Colour::Blue { "blue!" } else { "green" }).await;
        }
        done.store(true, Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    })
    .await;
    for colour in Colour::BOTH {
        until(async || setup.route.open_connections(colour).await == 0).await;
    }
    assert!(setup.route.accepted(Colour::Blue) > 0 && setup.route.accepted(Colour::Green) > 0);
}

#[tokio::test]
async fn the_count_of_the_old_colour_only_falls_after_the_switch() {
    let (blue, green) = (Service::named("blue!").await, Service::named("green").await);
    let setup = Setup::pointing_at(&blue).await;
    let mut old = setup.connect().await;
    ask(&mut old, "who?\n", "blue!").await;
    setup.point_at(Colour::Green, green.address).await;
    let mut new = setup.connect().await;
    ask(&mut new, "who?\n", "green").await;
    // The old one goes on, also with several questions at once.
    ask(&mut old, "who?\nwho?\nwho?\n", "blue!blue!blue!").await;
    let open = |colour| setup.route.open_connections(colour);
    assert_eq!((open(Colour::Blue).await, open(Colour::Green).await), (1, 1));
    drop(old);
    until(async || open(Colour::Blue).await == 0).await;
    assert_eq!(open(Colour::Green).await, 1);
}

#[tokio::test]
async fn who_was_refused_by_the_old_colour_gets_the_new_one() {
    let green = Service::named("green").await;
    let setup = Setup::with_hold(super::PATIENCE);
    setup.point_at(Colour::Blue, free_address()).await;
    let mut client = setup.connect().await;
    client.write_all(b"who?\n").await.unwrap();
    until(async || setup.route.held() == 1).await;
    setup.point_at(Colour::Green, green.address).await;
    super::expect(&mut client, "green").await;
}
