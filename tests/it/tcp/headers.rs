//! Services that are told who their clients are.

use std::net::SocketAddr;

use dorc::model::colour::Colour;
use dorc::model::proxy_protocol::ProxyProtocol;
use dorc::routing::{Route, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{PATIENCE, Service, Setup, ask, expect, local, until};
use crate::ports::free_address;

/// Who came, and where to, by the line that such a service gets first.
async fn introduction(socket: &mut TcpStream) -> String {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(socket.read_u8().await.unwrap().into());
    }
    line
}

/// Says what it was told, and then everything back.
async fn retells(mut socket: TcpStream) {
    let line = introduction(&mut socket).await;
    socket.write_all(line.as_bytes()).await.unwrap();
    let (mut from, mut to) = socket.split();
    tokio::io::copy(&mut from, &mut to).await.unwrap();
}

fn wanting(version: ProxyProtocol, address: SocketAddr) -> Target {
    Target { proxy_protocol: Some(version), ..Target::new(Colour::Blue, address) }
}

fn line_for(client: &TcpStream) -> String {
    let (own, listen) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    format!("PROXY TCP4 {} {} {} {}\r\n", own.ip(), listen.ip(), own.port(), listen.port())
}

#[tokio::test]
async fn a_service_is_told_before_anybody_speaks() {
    let service = Service::start(retells).await;
    let setup = Setup::with_hold(PATIENCE);
    setup.route.point_at(Some(wanting(ProxyProtocol::V1, service.address))).await.unwrap();
    for own in [[127, 0, 0, 1], [127, 0, 0, 9]] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((own, 0).into()).unwrap();
        let mut client = socket.connect(setup.address).await.unwrap();
        let line = line_for(&client);
        assert!(line.contains(&own.map(|byte| byte.to_string()).join(".")));
        expect(&mut client, &line).await;
        ask(&mut client, "hello", "hello").await;
    }
}

#[tokio::test]
async fn so_it_is_of_those_who_were_held() {
    let setup = Setup::with_hold(PATIENCE);
    let address = free_address();
    setup.route.point_at(Some(wanting(ProxyProtocol::V1, address))).await.unwrap();
    let mut client = setup.connect().await;
    client.write_all(b"early").await.unwrap();
    until(async || setup.route.held() == 1).await;
    let _service = Service::on(tokio::net::TcpListener::bind(address).await.unwrap(), retells);
    let line = line_for(&client);
    expect(&mut client, &format!("{line}early")).await;
}

#[tokio::test]
async fn each_colour_is_told_in_its_own_way() {
    let plain = Service::echo().await;
    let told = Service::start(|mut socket| async move {
        let mut header = [0; 28];
        socket.read_exact(&mut header).await.unwrap();
        let port = u16::from_be_bytes([header[24], header[25]]);
        socket.write_all(format!("{port}").as_bytes()).await.unwrap();
    })
    .await;
    let setup = Setup::with_hold(PATIENCE);
    setup.point_at(Colour::Green, plain.address).await;
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
    setup.route.point_at(Some(wanting(ProxyProtocol::V2, told.address))).await.unwrap();
    ask(&mut client, "again", "again").await;
    let mut client = setup.connect().await;
    let port = client.local_addr().unwrap().port();
    expect(&mut client, &port.to_string()).await;
    assert_eq!(client.peer_addr().unwrap().ip(), local(0).ip());
}
