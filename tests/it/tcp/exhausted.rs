//! No descriptors are left: that is survived.

use std::process::Command;

use dorc::model::colour::Colour;
use dorc::routing::Route;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use super::{Service, Setup, ask, expect, until};

/// Says to this program that it is the child whose limits may be ruined.
const CHILD: &str = "DORC_TEST_FEW_DESCRIPTORS";

#[tokio::test]
async fn running_out_of_descriptors_is_survived() {
    if std::env::var_os(CHILD).is_none() {
        let name = "tcp::exhausted::running_out_of_descriptors_is_survived";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "yes")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
        return;
    }
    clients_beyond_the_places_wait().await;
    accepting_goes_on_after_emfile().await;
}

fn limit(descriptors: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).unwrap();
}

/// The plane leaves room for both ends of each connection, so nobody is accepted and then stuck.
async fn clients_beyond_the_places_wait() {
    let service = Service::echo().await;
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: Some(200) }).unwrap();
    let setup = Setup::pointing_at(&service).await;
    // 75 places: a quarter of 200 stays free, a connection needs two. One is kept by whoever accepts next.
    let mut clients = Vec::new();
    let (mut served, mut waiting) = (0, 0);
    for number in 0..12 {
        clients.push(setup.connect().await);
        let mut client = clients.pop().unwrap();
        ask(&mut client, "hello", "hello").await;
        clients.push(client);
        served = number + 1;
    }
    limit(200);
    while waiting < 3 {
        clients.push(setup.connect().await);
        waiting += 1;
    }
    until(|| setup.route.open_connections(Colour::Blue) == served + waiting).await;
}

/// Something else took all descriptors: `accept` itself fails, and is tried again.
async fn accepting_goes_on_after_emfile() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
    // The client's own socket is made before the limit falls to what is in use.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
        .max()
        .unwrap();
    let fillers = fill(highest);
    let mut late: TcpStream = socket.connect(setup.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut late, b"hello").await.unwrap();
    ask(&mut client, "others go on", "others go on").await;
    assert_eq!(setup.route.open_connections(Colour::Blue), 1);
    drop(fillers);
    limit(200);
    expect(&mut late, "hello").await;
}

/// Opens files until no descriptor is left.
fn fill(highest: u64) -> Vec<std::fs::File> {
    limit(highest + 1);
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    files
}
