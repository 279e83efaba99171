//! The load generator: the count of failed requests is worth something only if it can be other than 0.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::host::program;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";

#[test]
fn a_close_between_two_requests_is_retried_and_no_failure() {
    let counted = load("--keep-alive 1 --one-shot 0", |mut stream| {
        // The second request on a connection is read and then left alone.
        if read_request(&mut stream) {
            stream.write_all(ANSWER.as_bytes()).expect("the client reads");
            read_request(&mut stream);
        }
    });
    assert_eq!(counted["failed"], 0, "{counted}");
    assert_ne!(counted["retried"], 0, "{counted}");
}

#[test]
fn a_close_before_the_first_answer_is_a_failure() {
    let counted = load("--keep-alive 1 --one-shot 1", |mut stream| {
        read_request(&mut stream);
    });
    assert_eq!((&counted["ok"], &counted["retried"]), (&Value::from(0), &Value::from(0)), "{counted}");
    assert_ne!(counted["reasons"]["no answer: the connection was closed"], Value::Null, "{counted}");
}

#[test]
fn an_end_within_an_answer_is_a_failure_also_on_a_kept_connection() {
    let counted = load("--keep-alive 1 --one-shot 0", |mut stream| {
        for answer in [ANSWER, &ANSWER[..ANSWER.len() - 1]] {
            if read_request(&mut stream) {
                stream.write_all(answer.as_bytes()).expect("the client reads");
            }
        }
    });
    assert_eq!(counted["retried"], 0, "{counted}");
    assert_ne!(counted["reasons"]["the connection was closed within an answer"], Value::Null, "{counted}");
}

#[test]
fn another_status_or_body_is_a_failure() {
    let counted = load("--keep-alive 1 --one-shot 1 --expect two", |mut stream| {
        for answer in [ANSWER, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"] {
            if read_request(&mut stream) {
                stream.write_all(answer.as_bytes()).expect("the client reads");
            }
        }
    });
    assert_eq!(counted["ok"], 0, "{counted}");
    assert_ne!(counted["reasons"]["a wrong body: one"], Value::Null, "{counted}");
}

#[test]
fn a_refused_connection_is_a_failure() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let counted = run(&format!("--address {address} --keep-alive 1 --one-shot 1"));
    assert_ne!(counted["refused"], 0, "{counted}");
    assert_eq!(counted["refused"], counted["failed"], "{counted}");
}

/// Runs the load generator against a server that treats each connection like this.
fn load(options: &str, serve: fn(TcpStream)) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    // It ends with the test process; each connection is over when its client is.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    run(&format!("--address {address} {options}"))
}

fn run(options: &str) -> Value {
    let output = Command::new(program("load"))
        .args(options.split_whitespace())
        .args(["--every", "1ms", "--seconds", "0.2", "--json"])
        .output()
        .expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Reads the head of a request; `false` at the end of the connection.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.find(String::is_empty).is_some()
}
