//! No descriptors are left: that is survived.

use std::process::Command;

use dorc::model::colour::Colour;
use dorc::routing::Route;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::TcpStream;

use super::{Service, Setup, ask, expect};

/// Says to this program that it is the child whose limits may be ruined.
const CHILD: &str = "DORC_TEST_FEW_DESCRIPTORS";
/// As many as that child may have.
const LIMIT: u64 = 200;

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
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    accepting_goes_on_after_emfile().await;
}

/// Something else took all descriptors: `accept` itself fails, and is tried again.
async fn accepting_goes_on_after_emfile() {
    let service = Service::echo().await;
    let setup = Setup::pointing_at(&service).await;
    let mut client = setup.connect().await;
    ask(&mut client, "hello", "hello").await;
    // The client's own socket is made while that is possible.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let fillers: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!fillers.is_empty());
    let mut late: TcpStream = socket.connect(setup.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut late, b"hello").await.unwrap();
    ask(&mut client, "others go on", "others go on").await;
    assert_eq!(setup.route.open_connections(Colour::Blue).await, 1);
    drop(fillers);
    expect(&mut late, "hello").await;
}
