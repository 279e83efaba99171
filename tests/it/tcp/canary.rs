//! Some clients go to another service, and neither of the two makes the other's clients wait.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dorc::model::colour::Colour;
use dorc::routing::{Canary, Route, Target};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{PATIENCE, Service, Setup, answer, expect, until};
use crate::ports::free_address;

/// Clients of the canary, and others.
fn clients(canary: Canary) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let all = (0..40).map(|n| IpAddr::from(Ipv4Addr::new(127, 0, 1, n)));
    all.partition(|client| canary.takes(*client))
}

async fn asking(setup: &Setup, clients: &[IpAddr]) -> Vec<TcpStream> {
    let mut asking = Vec::new();
    for client in clients {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(*client, 0)).unwrap();
        let mut client = socket.connect(setup.address).await.unwrap();
        client.write_all(b"who?\n").await.unwrap();
        asking.push(client);
    }
    asking
}

async fn get(clients: &mut [TcpStream], answer: &str) {
    for client in clients {
        expect(client, answer).await;
    }
}

async fn with_canary(active: SocketAddr, canary: SocketAddr) -> (Setup, Canary) {
    let setup = Setup::with_hold(PATIENCE);
    setup.point_at(Colour::Green, active).await;
    let target = Target::new(Colour::Blue, canary);
    let canary = Canary { target, share: "50%".parse().unwrap() };
    setup.route.split(Some(canary)).await.unwrap();
    (setup, canary)
}

#[tokio::test]
async fn those_of_a_canary_that_is_away_wait_alone() {
    let green = Service::named("green").await;
    let (setup, canary) = with_canary(green.address, free_address()).await;
    let (those, others) = clients(canary);
    let mut waiting = asking(&setup, &those).await;
    until(async || setup.route.held() == those.len()).await;

    get(&mut asking(&setup, &others).await, "green").await;

    assert_eq!(setup.route.held(), those.len());
    setup.route.split(None).await.unwrap();
    get(&mut waiting, "green").await;
    assert_eq!(setup.route.held(), 0);
}

#[tokio::test]
async fn those_of_a_canary_do_not_wait_for_the_active_service() {
    let address = free_address();
    let (setup, canary) = with_canary(free_address(), address).await;
    let (those, others) = clients(canary);
    let _held = asking(&setup, &others).await;
    let mut waiting = asking(&setup, &those).await;
    until(async || setup.route.held() == 40).await;

    let _blue = Service::on(TcpListener::bind(address).await.unwrap(), |socket| answer(socket, "blue"));

    get(&mut waiting, "blue").await;
    assert_eq!(setup.route.held(), others.len());
}
