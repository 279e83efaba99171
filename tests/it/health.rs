//! Probes against small servers that do all that servers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use dorc::health::{Subject, probe};
use dorc::model::app::Check;
use dorc::model::health::Probe;
use dorc::model::proxy_protocol::ProxyProtocol;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

/// Where it listens, and what it was asked.
struct Server {
    address: SocketAddr,
    asked: JoinHandle<String>,
}

/// Answers one connection with these pieces, a pause before each but the first, and then holds it open.
async fn server(pieces: &[&str], pause: Duration, hold: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        for (number, piece) in pieces.into_iter().enumerate() {
            if number > 0 {
                sleep(pause).await;
            }
            if stream.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        if hold {
            // The client closes, sooner or later.
            let _ = stream.read(&mut [0]).await;
        }
        String::from_utf8(request[..count].to_vec()).unwrap()
    });
    Server { address, asked }
}

async fn ask(check: &Check, address: SocketAddr, timeout: Duration) -> Probe {
    let env = BTreeMap::from([("PORT".to_owned(), "8081".to_owned())]);
    let subject = Subject {
        address,
        proxy_protocol: None,
        up_for: Duration::from_millis(300),
        env: &env,
        dir: Path::new("/tmp"),
    };
    let mut probe = probe(check, subject, timeout).await;
    probe.answer = without_time(&probe.answer.replace(&address.to_string(), "ADDRESS"));
    probe
}

/// Times differ from run to run.
fn without_time(answer: &str) -> String {
    let words: Vec<_> = answer.split(' ').collect();
    let mut all = words.clone();
    for (number, pair) in words.windows(2).enumerate() {
        if pair[1].starts_with("ms") && pair[0].parse::<u32>().is_ok() {
            all[number] = "N";
        }
    }
    all.join(" ")
}

#[tokio::test]
async fn a_service_that_wants_to_know_is_told_who_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (stream, client) = listener.accept().await.unwrap();
        let mut stream = BufStream::new(stream);
        let mut lines = [String::new(), String::new()];
        for line in &mut lines {
            stream.read_line(line).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let port = client.port();
        let introduced = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", address.port());
        assert_eq!(lines, [introduced, "GET /healthz?x HTTP/1.1\r\n".to_owned()]);
    });
    let (env, dir) = (BTreeMap::new(), Path::new("/"));
    let subject =
        Subject { address, proxy_protocol: Some(ProxyProtocol::V1), up_for: Duration::ZERO, env: &env, dir };
    let probe = probe(&http(), subject, PATIENCE).await;
    assert!(probe.healthy, "{}", probe.answer);
    asked.await.unwrap();
}

fn http() -> Check {
    Check::Http { path: "/healthz?x".into(), host: "example.org".into() }
}

async fn get(pieces: &[&str]) -> (bool, String) {
    let server = server(pieces, Duration::ZERO, false).await;
    let probe = ask(&http(), server.address, PATIENCE).await;
    (probe.healthy, probe.answer)
}

fn unhealthy(answer: &str) -> (bool, String) {
    (false, answer.to_owned())
}

#[tokio::test]
async fn success_is_healthy_and_the_request_is_as_configured() {
    let server = server(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], Duration::ZERO, true).await;
    let probe = ask(&http(), server.address, PATIENCE).await;
    assert_eq!((probe.healthy, probe.answer.as_str()), (true, "GET /healthz?x 200 in N ms"));
    let asked = server.asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get /healthz?x http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: example.org\r\n"), "{asked}");
    assert!(asked.contains("\r\nconnection: close\r\n"), "{asked}");
    let no_content = get(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
    assert_eq!(no_content, (true, "GET /healthz?x 204 in N ms".into()));
}

#[tokio::test]
async fn everything_else_is_unhealthy_and_says_why() {
    let sick = get(&["HTTP/1.1 503 No\r\nContent-Length: 13\r\n\r\n", "no\x1b\ndatabase"]).await;
    assert_eq!(sick, unhealthy("GET /healthz?x 503 in N ms: \"no\\u{1b}\\ndatabase\""));
    let empty = get(&["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]).await;
    assert_eq!(empty, unhealthy("GET /healthz?x 500 in N ms"));
    let moved = get(&["HTTP/1.1 301 Moved\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"]).await;
    assert_eq!(moved, unhealthy("GET /healthz?x 301 in N ms, a redirect to \"/login\""));
    let closed = get(&[]).await;
    assert_eq!(closed, unhealthy("GET /healthz?x: the connection was closed without an answer"));
    let half = get(&["HTTP/1.1 200 OK\r\nConte"]).await;
    assert_eq!(half, unhealthy("GET /healthz?x: the connection was closed without an answer"));
    let (healthy, garbage) = get(&["220 mail.example.org ESMTP ready\r\n"]).await;
    assert!(!healthy && garbage.starts_with("GET /healthz?x: no HTTP answer: "), "{garbage}");
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!(
        get(&[&huge]).await,
        unhealthy("GET /healthz?x: the head of the answer is longer than 32 KiB")
    );
    let long = format!("HTTP/1.1 500 No\r\n\r\n{}", "x".repeat(1 << 20));
    assert_eq!(get(&[&long]).await.1, format!("GET /healthz?x 500 in N ms: \"{}\"", "x".repeat(200)));
}

#[tokio::test]
async fn the_timeout_is_one_for_all() {
    let begin = Instant::now();
    let mute = server(&[], Duration::ZERO, true).await;
    let silence = "GET /healthz?x: no answer within 300ms";
    assert_eq!(ask(&http(), mute.address, SHORT).await.answer, silence);
    let letters: Vec<_> = "HTTP/1.1 200 OK\r\n".split_inclusive("").collect();
    let drip = server(&letters, Duration::from_millis(50), true).await;
    assert_eq!(ask(&http(), drip.address, SHORT).await.answer, silence);
    let body = server(&["HTTP/1.1 500 No\r\n\r\nslo", "w", "ly"], Duration::from_millis(200), true).await;
    assert_eq!(ask(&http(), body.address, SHORT).await.answer, "GET /healthz?x 500 in N ms: \"slow\"");
    let endless = server(&["HTTP/1.1 200 OK\r\n\r\nslo", "w"], PATIENCE, true).await;
    assert!(ask(&http(), endless.address, PATIENCE).await.healthy, "only the status counts");
    assert!(begin.elapsed() < SHORT * 3 + Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_port_has_to_answer_and_the_service_to_stay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = |up_for| Check::Port { up_for: Duration::from_millis(up_for) };
    let good = ask(&check(300), address, PATIENCE).await;
    assert_eq!((good.healthy, good.answer.as_str()), (true, "connect to ADDRESS in N ms"));
    let young = ask(&check(1000), address, PATIENCE).await;
    let reason = "connect to ADDRESS in N ms, but it has been up for 0.3 s of 1.0 s only";
    assert_eq!((young.healthy, young.answer.as_str()), (false, reason));
    drop(listener);
    for check in [check(0), http()] {
        let refused = ask(&check, address, PATIENCE).await;
        assert_eq!(
            (refused.healthy, refused.answer.as_str()),
            (false, "connect to ADDRESS: connection refused")
        );
    }
}

async fn run(words: &[&str], timeout: Duration) -> (bool, String) {
    let check = Check::Command(words.iter().map(|word| (*word).to_owned()).collect());
    let probe = ask(&check, "127.0.0.1:1".parse().unwrap(), timeout).await;
    (probe.healthy, probe.answer)
}

#[tokio::test]
async fn a_command_has_to_exit_with_zero() {
    let good = run(&["/bin/sh", "-c", "echo one; echo port $PORT in $PWD >&2"], PATIENCE).await;
    assert_eq!(good, (true, "sh exit status 0 in N ms: \"port 8081 in /tmp\"".into()));
    assert_eq!(run(&["false"], PATIENCE).await, unhealthy("false exit status 1 in N ms"));
    assert_eq!(run(&["/no/such"], PATIENCE).await, unhealthy("such: no such file or directory"));
    let killed = run(&["sh", "-c", "kill -9 $$"], PATIENCE).await;
    assert!(!killed.0 && killed.1.starts_with("sh ended by signal: 9"), "{killed:?}");
    let background = run(&["sh", "-c", "sleep 3 & echo done"], PATIENCE).await;
    assert_eq!(background, (true, "sh exit status 0 in N ms: \"done\"".into()));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; yes", file.display());
    let (healthy, answer) = run(&["sh", "-c", &script], Duration::from_secs(1)).await;
    assert!(!healthy);
    assert_eq!(answer, "sh: no answer within 1s: \"y\"");
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "it is still there");
        sleep(Duration::from_millis(10)).await;
    }
}
