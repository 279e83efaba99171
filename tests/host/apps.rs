//! dorc as its user has it on a test host: installed, apps registered, clients that count.

use std::time::Duration;

use serde_json::Value;

use crate::host::{Background, Output, TestHost};

/// Generous, because the machine may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// What most app files of scenarios end with: short times.
pub const QUICK: &str = "[switch]\ndrain = \"1s\"\nbake = \"0s\"\n[release]\nsettle = \"200ms\"\n";

/// A host with dorc and the load generator, and with the test backend at `/opt/backend`.
pub fn boot() -> Option<TestHost> {
    let host = TestHost::boot()?;
    host.install_dorc();
    host.install_program("load", "/usr/local/bin/load");
    host.install_program("backend", "/opt/backend");
    Some(host)
}

/// An app of the test backend at `/srv/{app}`, with its first release, version `one`.
#[track_caller]
pub fn backend_app(host: &TestHost, app: &str, port: u16, more: &str) {
    upload(host, app, "one", "ok");
    let text = format!("{}{more}", backend_file(app, port));
    register(host, app, &text).success();
}

/// The beginning of an app file for the test backend.
pub fn backend_file(app: &str, port: u16) -> String {
    format!("listen = {port}\nrelease_dir = \"/srv/{app}\"\nrelease_bin = \"backend\"\n")
}

/// Uploads the test backend as this version.
#[track_caller]
pub fn upload(host: &TestHost, app: &str, version: &str, behaviour: &str) {
    let files = format!("printf %s '{version}' >version; printf '%s\\n' '{behaviour}' >behaviour");
    host.sh(&format!(
        "mkdir -p /srv/{app} && cd /srv/{app} && {files} && cp /opt/backend .backend && mv .backend backend"
    ));
}

/// Registers an app by its app file; the whole answer.
pub fn register(host: &TestHost, app: &str, text: &str) -> Output {
    host.write(&format!("/home/{app}.toml"), text, 0o644);
    host.run(&format!("dorc register -f /home/{app}.toml"))
}

/// `dorc switch`, which must succeed.
#[track_caller]
pub fn switch(host: &TestHost, app: &str) {
    host.sh(&format!("dorc switch {app}"));
}

/// The status of one app.
#[track_caller]
pub fn status(host: &TestHost, app: &str) -> Value {
    let output = host.run(&format!("dorc status {app} --json"));
    output.success();
    output.json()["apps"][0].clone()
}

/// Waits until the status of an app has a value there.
#[track_caller]
pub fn await_status(host: &TestHost, app: &str, pointer: &str, value: &str) -> Value {
    let mut last = Value::Null;
    host.wait_until(SOON, &format!("{pointer} of {app} is {value}"), || {
        last = status(host, app);
        (last.pointer(pointer).and_then(Value::as_str) == Some(value)).then(|| last.clone())
    })
}

/// What a client gets there.
#[track_caller]
pub fn get(host: &TestHost, port: u16) -> String {
    host.sh(&format!("curl --silent --show-error --fail --max-time 20 http://127.0.0.1:{port}/"))
}

/// Steady traffic that counts what goes wrong.
pub struct Traffic {
    load: Background,
}

impl Traffic {
    /// Starts it; each answer must be one of those, which are separated by commas.
    #[track_caller]
    pub fn start(host: &TestHost, port: u16, expect: &str) -> Self {
        let clients = "--keep-alive 3 --one-shot 3 --every 10ms";
        let load = host.spawn(&format!(
            "load --address 127.0.0.1:{port} {clients} --expect '{expect}' --until-stdin-closes --json"
        ));
        load.wait_for("warm", SOON);
        Self { load }
    }

    /// Ends it; not one request may have failed. The count of each answer.
    #[track_caller]
    pub fn end_without_failure(self) -> Value {
        let result = self.load.wait();
        let counted = result.json();
        assert_eq!(counted["failed"], 0, "{result}");
        assert_ne!(counted["ok"], 0, "{result}");
        counted["bodies"].clone()
    }
}
