//! The demo's backend, run by the embedded supervisor as `dorc demo` runs it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dorc::health::{Subject, probe};
use dorc::model::app::{AppName, Check, Sandbox, Service, ServiceId};
use dorc::model::colour::Colour;
use dorc::model::health::Probe;
use dorc::model::release::{Digest, ReleaseId};
use dorc::services::Services;
use dorc::services::embedded::Embedded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const DORC: &str = env!("CARGO_BIN_EXE_dorc");
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that behaves like this, on a port that was free a moment ago.
fn backend(dir: &Path, behaviour: &str) -> (Service, SocketAddr) {
    fs::write(dir.join("version"), "1.0\n").unwrap();
    fs::write(dir.join("behaviour"), behaviour).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let service = Service {
        id: ServiceId { app: AppName::new("demo").unwrap(), colour: Colour::Blue },
        release: ReleaseId::new(1, &Digest([7; 32])),
        dir: dir.to_owned(),
        start: vec![DORC.into(), "demo-backend".into(), address.port().to_string()],
        reload: None,
        stop: None,
        env: [].into(),
        env_file: None,
        credentials: Default::default(),
        user: None,
        working_dir: dir.to_owned(),
        memory_max: None,
        sandbox: Sandbox::Off,
        notify: false,
        start_timeout: PATIENCE,
    };
    (service, address)
}

fn supervisor(dir: &Path) -> Embedded {
    Embedded::new(PathBuf::from(DORC), dir.join("services"))
}

/// Asks until the answer is another one than a refused connection.
async fn health(address: SocketAddr) -> Probe {
    let check = Check::Http { path: "/healthz".into(), host: "localhost".into() };
    let env = [].into();
    let subject =
        Subject { address, proxy_protocol: None, up_for: Duration::ZERO, env: &env, dir: Path::new("/") };
    timeout(PATIENCE, async {
        loop {
            let probe = probe(&check, subject, Duration::from_millis(500)).await;
            if !probe.answer.ends_with("refused") {
                return probe;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn it_serves_and_finishes_what_it_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let services = supervisor(dir.path());
    let (service, address) = backend(dir.path(), "ok");
    services.start(&service).await.unwrap();
    assert!(health(address).await.healthy);
    assert_eq!(services.listening_ports(&service.id).await, [address.port()]);

    let mut client = TcpStream::connect(address).await.unwrap();
    let mut answer = vec![0; 1000];
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let count = client.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..count]).ends_with("\r\n\r\n1.0\n"));
    client.write_all(b"GET /slow?ms=500 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    services.stop(&service.id).await.unwrap();
    for mut client in [client, waiting] {
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("1.0\n"), "{rest}");
    }
    assert_eq!(services.running(&service.id).await.unwrap(), None);
}

#[tokio::test]
async fn it_misbehaves_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let services = supervisor(dir.path());
    let (service, address) = backend(dir.path(), "unhealthy");
    services.start(&service).await.unwrap();
    let sick = health(address).await;
    assert!(!sick.healthy && sick.answer.ends_with("ms: \"no database\""), "{}", sick.answer);

    let (service, address) = backend(dir.path(), "hang");
    services.start(&service).await.unwrap();
    assert_eq!(health(address).await.answer, "GET /healthz: no answer within 500ms");

    let (service, address) = backend(dir.path(), "wrong-port");
    services.start(&service).await.unwrap();
    let ports = timeout(PATIENCE, async {
        loop {
            match services.listening_ports(&service.id).await {
                ports if ports.is_empty() => sleep(Duration::from_millis(10)).await,
                ports => return ports,
            }
        }
    });
    let ports = ports.await.unwrap();
    assert!(ports.len() == 1 && ports != [address.port()], "{ports:?}");

    let (service, _) = backend(dir.path(), "exit 3");
    let mut exits = services.exits(&service.id.app);
    services.start(&service).await.unwrap();
    assert_eq!(timeout(PATIENCE, exits.recv()).await.unwrap().unwrap().exit.how, "exit status 3");
    assert_eq!(services.last_lines(&service.id, 1).await, ["DATABASE_URL must be set"]);
    services.shutdown().await;
}
