//! What machines read: metrics, events, and that each JSON document is as its schema says.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Folder, eventually};
use crate::ports::free_address;

/// A folder whose daemon has a file of its own.
fn with(own: &str) -> Folder {
    started(Folder::new(), own)
}

fn started(mut folder: Folder, own: &str) -> Folder {
    fs::create_dir(folder.path().join(".dorc")).unwrap();
    fs::write(folder.path().join(".dorc/dorc.toml"), own).unwrap();
    folder.start();
    folder
}

/// The schema of such a document, under which it may say nothing that is not described.
fn schema(subject: &str) -> Validator {
    let mut schema = Folder::new().exits(0, &["schema", subject]).json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    close(&mut schema);
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Refuses what an object has besides its properties.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if keys.contains_key("properties") && !keys.contains_key("$ref") {
                keys.insert("additionalProperties".into(), json!(false));
            }
            keys.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

fn is_valid(subject: &str, documents: &[Value]) {
    let schema = schema(subject);
    assert!(!documents.is_empty(), "{subject}");
    for document in documents {
        let wrongs: Vec<_> = schema.iter_errors(document).map(|wrong| wrong.to_string()).collect();
        assert!(wrongs.is_empty(), "{subject}: {wrongs:?}\n{document:#}");
    }
}

#[test]
fn each_document_is_as_its_schema_says() {
    let folder = Folder::live();
    let build = folder.build("2", "ok", false);
    let words = ["deploy", "web", build.to_str().unwrap(), "--label", "v2", "--json"];
    let file = folder.path().join("web.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "[switch]\nbake = \"1s\"\n").unwrap();
    folder.exits(0, &["update", "web", "--json"]);
    let mut lines = folder.exits(0, &words).lines();
    let answer = lines.pop().unwrap();
    assert!(lines.iter().any(|line| line["event"] == "baked"), "{lines:#?}");
    let mut statuses = vec![folder.exits(0, &["status", "--json"]).json()];
    let mut answers = vec![answer];

    // What is not healthy, frozen, and a canary.
    folder.upload("3", "exit 3");
    let mut failed = folder.exits(10, &["switch", "web", "--json"]).lines();
    answers.push(failed.pop().unwrap());
    lines.extend(failed);
    statuses.push(folder.exits(0, &["status", "web", "--json"]).json());
    folder.upload("4", "ok");
    folder.until("4 is ready", |status| status["green"]["state"] == "ready");
    let mut canary = folder.exits(0, &["switch", "web", "--canary", "10%", "--json"]).lines();
    answers.push(canary.pop().unwrap());
    lines.extend(canary);
    folder.exits(0, &["freeze", "web", "--reason", "the fair", "--json"]);
    fs::write(folder.path().join("broken.toml"), "nonsense").unwrap();
    answers.push(folder.exits(1, &["load", "broken", "--json", "--no-wait"]).json());
    statuses.push(folder.exits(0, &["status", "--json"]).json());

    is_valid("status", &statuses);
    is_valid("answer", &answers);
    is_valid("event", &lines);
    is_valid("releases", &[folder.exits(0, &["releases", "web", "--json"]).json()]);
    is_valid("history", &folder.exits(0, &["history", "--json"]).lines());
}

#[test]
fn a_schema_refuses_what_is_something_else() {
    let folder = Folder::live();
    let mut status = folder.exits(0, &["status", "--json"]).json();
    let schema = schema("status");
    assert!(schema.is_valid(&status));
    status["apps"][0]["phase"] = "dreaming".into();
    assert!(!schema.is_valid(&status));
    assert!(!schema.is_valid(&json!({ "apps": [] })));
}

/// The value of the sample that begins like this, if there is one.
fn sample(page: &str, labelled: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{labelled} ")))?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn metrics_say_what_is_and_how_often_what_happened() {
    let address = free_address();
    let folder = with(&format!("metrics = \"{address}\"\n"));
    assert_eq!(
        sample(&folder.exits(0, &["metrics"]).out, "dorc_app_phase{app=\"web\",phase=\"vacant\"}"),
        Some(1.0)
    );
    let build = folder.build("1", "ok", false);
    folder.exits(0, &["deploy", "web", build.to_str().unwrap(), "--label", "a \"b\" \\ c"]);
    folder.upload("2", "exit 3");
    folder.exits(10, &["switch", "web"]);
    folder.exits(0, &["freeze", "web", "--reason", "x"]);

    let ask = |what: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("{what} HTTP/1.1\r\nhost: dorc\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/plain; version=0.0.4"), "{answer}");
    for (labelled, value) in [
        ("dorc_app_frozen{app=\"web\"}", 1.0),
        ("dorc_app_phase{app=\"web\",phase=\"steady\"}", 1.0),
        ("dorc_service_state{app=\"web\",colour=\"blue\",state=\"failed\"}", 1.0),
        ("dorc_service_state{app=\"web\",colour=\"green\",state=\"active\"}", 1.0),
        ("dorc_app_events_total{app=\"web\",what=\"deploy\",failed=\"false\"}", 1.0),
        ("dorc_app_events_total{app=\"web\",what=\"try\",failed=\"true\"}", 1.0),
        ("dorc_broken_app_files", 0.0),
    ] {
        assert_eq!(sample(&answer, labelled), Some(value), "{labelled}\n{answer}");
    }
    assert!(answer.contains(r#"label="a \"b\" \\ c"} 1"#), "{answer}");

    for rude in ["GET /v1/apps", "POST /v1/apps/web/switch", "POST /metrics"] {
        let answer = ask(rude);
        assert!(answer.starts_with("HTTP/1.1 404"), "{rude}: {answer}");
    }
}

#[test]
fn a_command_is_told_of_failures_and_rollbacks_or_of_all() {
    for (which, expected) in [("failures", vec!["try", "rollback"]), ("all", vec!["take", "switch"])] {
        let folder = Folder::new();
        let (told, program) = (folder.path().join("told"), folder.path().join("tell"));
        fs::write(&program, format!("#!/bin/sh\ncat >>{}\n", told.display())).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let own = format!("[events]\ncommand = \"{}\"\nwhich = \"{which}\"\n", program.display());
        let folder = started(folder, &own);
        folder.upload("1", "ok");
        folder.until("1 is live", |status| status["phase"] == "steady");
        folder.upload("2", "exit 3");
        folder.exits(10, &["switch", "web"]);
        folder.upload("3", "ok");
        folder.exits(0, &["switch", "web"]);
        folder.exits(0, &["rollback", "web"]);
        let lines = eventually("all is told", || {
            let told = fs::read_to_string(&told).unwrap_or_default();
            let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.iter().any(|line| line["what"] == "rollback").then_some(lines)
        });
        is_valid("history", &lines);
        let what: Vec<_> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
        assert!(what.starts_with(&expected), "{which}: {what:?}");
    }
}

#[test]
fn a_wrong_file_of_the_daemon_is_told_of_and_apps_go_on() {
    let folder = with("metric = 3\n");
    let said = folder.exits(1, &["check"]);
    assert!(
        said.err.contains("dorc.toml:1: metric: ") && said.err.contains("did you mean metrics"),
        "{}",
        said.err
    );
    folder.exits(1, &["check", folder.path().join(".dorc/dorc.toml").to_str().unwrap()]);
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("did you mean metrics"), "{log}");
    folder.exits(0, &["status", "web"]);
}
