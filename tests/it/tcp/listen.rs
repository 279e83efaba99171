//! Listen addresses come, stay and go.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};

use dorc::model::colour::Colour;
use tokio::net::{TcpListener, TcpStream};

use super::{PATIENCE, Service, Setup, ask, local};
use crate::ports::free_address;

#[tokio::test]
async fn one_route_has_several_addresses_and_both_families() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let port = free_address().port();
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    setup.route.listen(&[setup.address, all], Vec::new()).unwrap();
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for address in [setup.address, local(port), loopback] {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, "hello", "hello").await;
    }
    assert_eq!(setup.route.listeners().len(), 3);
    // Asking for the same once more, and for both families by name, changes nothing.
    let any = SocketAddr::from(([0, 0, 0, 0], port));
    setup.route.listen(&[any, all, setup.address], Vec::new()).unwrap();
    assert_eq!(setup.route.listeners().len(), 3);
}

#[tokio::test]
async fn the_unwanted_end_and_the_kept_notice_nothing() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut old = setup.connect().await;
    ask(&mut old, "hello", "hello").await;
    let stored = setup.route.listeners();
    let new = free_address();
    setup.route.listen(&[new], Vec::new()).unwrap();
    let refused = TcpStream::connect(setup.address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "although the descriptor store still has it");
    drop(stored);
    ask(&mut old, "still here", "still here").await;
    let mut client = TcpStream::connect(new).await.unwrap();
    ask(&mut client, "hello", "hello").await;
    setup.route.listen(&[setup.address, new], Vec::new()).unwrap();
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
}

#[tokio::test]
async fn an_address_in_use_is_named_and_nothing_is_changed() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let taken = TcpListener::bind(local(0)).await.unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).await.unwrap();
    let free = free_address();
    let error = setup.route.listen(&[free, taken], Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on {taken}: it is in use by another program"));
    assert!(TcpStream::connect(free).await.is_err());
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
    let foreign = "192.0.2.1:80".parse().unwrap();
    let error = setup.plane.open(&[foreign], PATIENCE, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no network interface"), "{error}");
}

#[tokio::test]
async fn an_adopted_listener_keeps_its_queue() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let inherited = std::net::TcpListener::bind(local(0)).unwrap();
    let unrelated = std::net::TcpListener::bind(local(0)).unwrap();
    let (address, other) = (inherited.local_addr().unwrap(), unrelated.local_addr().unwrap());
    let mut queued = TcpStream::connect(address).await.unwrap();
    setup.route.listen(&[address], vec![unrelated, inherited]).unwrap();
    ask(&mut queued, "I was here before", "I was here before").await;
    assert!(TcpStream::connect(other).await.is_err(), "what nobody wants is closed");
    assert_eq!(setup.route.accepted(Colour::Blue), 1);
}
