//! Clients whose service is away.

use std::time::{Duration, Instant};

use dorc::model::colour::Colour;
use dorc::routing::Route;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{PATIENCE, Service, Setup, answer, expect, until, within};
use crate::ports::free_address;

#[tokio::test]
async fn clients_wait_for_a_service_that_restarts() {
    let setup = Setup::with_hold(PATIENCE);
    let address = free_address();
    setup.point_at(Colour::Blue, address).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = setup.connect().await;
        client.write_all(b"anyone?\n").await.unwrap();
        clients.push(client);
    }
    until(async || setup.route.held() == 200).await;
    assert!(setup.route.open_connections(Colour::Blue).await <= 1, "only one of them may be trying");
    let _service = Service::on(TcpListener::bind(address).await.unwrap(), |socket| answer(socket, "here"));
    for client in &mut clients {
        expect(client, "here").await;
    }
    assert_eq!((setup.route.held(), setup.route.accepted(Colour::Blue)), (0, 200));
}

#[tokio::test]
async fn clients_are_handed_over_when_a_target_is_named() {
    let setup = Setup::with_hold(PATIENCE);
    let mut client = setup.connect().await;
    client.write_all(b"anyone?\n").await.unwrap();
    until(async || setup.route.held() == 1).await;
    // First to one that refuses, then to one that answers.
    setup.point_at(Colour::Blue, free_address()).await;
    let service = Service::named("green").await;
    setup.point_at(Colour::Green, service.address).await;
    expect(&mut client, "green").await;
    assert_eq!((setup.route.open_connections(Colour::Blue).await, setup.route.held()), (0, 0));
}

#[tokio::test]
async fn a_client_is_not_held_for_ever() {
    let hold = Duration::from_millis(100);
    let setup = Setup::with_hold(PATIENCE);
    setup.route.set_hold(hold);
    let start = Instant::now();
    let mut client = setup.connect().await;
    assert_eq!(within(client.read(&mut [0; 1])).await.unwrap(), 0);
    assert!(start.elapsed() >= hold);
    assert_eq!((setup.route.held(), setup.route.given_up()), (0, 1));
}

#[tokio::test]
async fn who_goes_away_is_not_held_any_longer() {
    let setup = Setup::with_hold(PATIENCE);
    let silent = setup.connect().await;
    let mut half_closed = setup.connect().await;
    half_closed.write_all(b"anyone?\n").await.unwrap();
    half_closed.shutdown().await.unwrap();
    let mut reset = setup.connect().await;
    reset.write_all(b"anyone?\n").await.unwrap();
    until(async || setup.route.held() == 3).await;
    drop(silent);
    until(async || setup.route.held() == 2).await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    until(async || setup.route.held() == 1).await;
    // The one that only has nothing more to say still gets its answer.
    let service = Service::named("late").await;
    setup.point_at(Colour::Blue, service.address).await;
    let mut late = String::new();
    within(half_closed.read_to_string(&mut late)).await.unwrap();
    assert_eq!(late, "late");
}

#[tokio::test]
async fn a_service_whose_queue_is_full_gets_its_clients_later() {
    // A queue of one, and nobody who accepts: the kernel drops further handshakes.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(super::local(0)).unwrap();
    let listener = socket.listen(1).unwrap();
    let setup = Setup::with_hold(PATIENCE);
    setup.point_at(Colour::Blue, listener.local_addr().unwrap()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = setup.connect().await;
        client.write_all(b"anyone?\n").await.unwrap();
        clients.push(client);
    }
    until(async || setup.route.held() > 10).await;
    let _service = Service::on(listener, |socket| answer(socket, "here"));
    for client in &mut clients {
        expect(client, "here").await;
    }
}
