//! Bytes: all of them, in both directions, for as long as either side has some.

use std::io::ErrorKind;
use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::routing::Route;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Service, Setup, ask, expect, until, within};

const BULK: usize = 64 << 20;

/// The byte at that place of a bulk transfer: no period that divides a buffer's or a page's size.
fn byte_at(index: usize) -> u8 {
    (index % 251) as u8 ^ (index / 65_521) as u8
}

async fn send_bulk(socket: &mut (impl AsyncWriteExt + Unpin)) {
    let mut chunk = vec![0; 1 << 20];
    for start in (0..BULK).step_by(chunk.len()) {
        for (at, byte) in chunk.iter_mut().enumerate() {
            *byte = byte_at(start + at);
        }
        socket.write_all(&chunk).await.unwrap();
    }
    socket.shutdown().await.unwrap();
}

async fn receive_bulk(socket: &mut (impl AsyncReadExt + Unpin)) {
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = socket.read(&mut chunk).await.unwrap();
        if count == 0 {
            break;
        }
        for &byte in &chunk[..count] {
            assert_eq!(byte, byte_at(at), "at byte {at}");
            at += 1;
        }
    }
    assert_eq!(at, BULK);
}

#[tokio::test]
async fn what_is_said_arrives_and_is_answered() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    for text in ["one", "and another one"] {
        ask(&mut client, text, text).await;
    }
    assert_eq!(setup.route.open_connections(Colour::Blue).await, 1);
    assert_eq!(setup.route.accepted(Colour::Blue), 1);
    drop(client);
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}

#[tokio::test]
async fn several_threads_share_the_clients() {
    let service = Service::echo().await;
    let setup = Setup::with_threads(3, super::PATIENCE);
    setup.point_at(Colour::Green, service.address).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(setup.connect().await);
    }
    for client in &mut clients {
        ask(client, "hello", "hello").await;
    }
    assert_eq!(setup.route.open_connections(Colour::Green).await, 50);
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let service = Service::start(|mut socket| async move {
        let mut all = String::new();
        socket.read_to_string(&mut all).await.unwrap();
        socket.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    client.write_all(b"12345").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "5 bytes");
}

#[tokio::test]
async fn a_service_that_has_said_all_still_listens() {
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let service = Service::start(move |mut socket| {
        let heard = heard.clone();
        async move {
            socket.write_all(b"welcome").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut all = String::new();
            socket.read_to_string(&mut all).await.unwrap();
            heard.send(all).await.unwrap();
        }
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    let mut greeting = String::new();
    within(client.read_to_string(&mut greeting)).await.unwrap();
    assert_eq!(greeting, "welcome");
    client.write_all(b"thank you").await.unwrap();
    drop(client);
    assert_eq!(within(hears.recv()).await.unwrap(), "thank you");
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}

#[tokio::test]
async fn long_transfers_arrive_whole_in_both_directions_at_once() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    let pipes = pipes_of_this_process();
    let (mut read, mut write) = client.split();
    let most_pipes = async {
        let mut most = pipes;
        loop {
            most = most.max(pipes_of_this_process());
            if most > pipes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(async { tokio::join!(send_bulk(&mut write), receive_bulk(&mut read), most_pipes) }).await;
}

/// `splice` needs pipes, and nothing else in these tests makes any that would be kept.
fn pipes_of_this_process() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_fills_no_memory() {
    let service = Service::start(|mut socket| async move {
        send_bulk(&mut socket).await;
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    let before = resident();
    expect(&mut client, "").await;
    // What fits into the kernel's buffers has arrived when nothing moves any more.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(resident() < before + (8 << 20), "{} MiB more", (resident() - before) >> 20);
    within(receive_bulk(&mut client)).await;
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn an_answer_of_any_length_is_followed_by_its_end() {
    let lengths = [0, 1, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20];
    let service = Service::start(|mut socket| async move {
        let mut length = String::new();
        socket.read_to_string(&mut length).await.unwrap();
        socket.write_all(&vec![b'x'; length.parse().unwrap()]).await.unwrap();
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    for length in lengths.into_iter().cycle().take(400) {
        let mut client = setup.connect().await;
        client.write_all(length.to_string().as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer.len(), length);
    }
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}

#[tokio::test]
async fn what_comes_after_an_urgent_byte_is_not_left() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    // The kernel keeps the urgent byte out of the stream, and ends a read in front of it.
    for (text, flags) in [("before!", SendFlags::OOB), ("after", SendFlags::empty())] {
        send(&client, text.as_bytes(), flags).unwrap();
    }
    let mut echo = [0; 11];
    within(client.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"beforeafter");
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other() {
    let service = Service::start(|mut socket| async move {
        let mut byte = [0; 1];
        socket.read_exact(&mut byte).await.unwrap();
        match byte[0] {
            b'r' => socket.set_zero_linger().unwrap(),
            _ => {
                socket.write_all(b"go").await.unwrap();
                let error = socket.read(&mut byte).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    })
    .await;
    let setup = Setup::pointing_at(&service).await;
    let mut reset_by_service = setup.connect().await;
    reset_by_service.write_all(b"r").await.unwrap();
    let error = within(reset_by_service.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut resets: TcpStream = setup.connect().await;
    ask(&mut resets, "x", "go").await;
    resets.set_zero_linger().unwrap();
    drop(resets);
    until(async || setup.route.open_connections(Colour::Blue).await == 0).await;
}
