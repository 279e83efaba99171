//! The app file that `dorc register` writes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::defaults;
use crate::model::app::{
    App, Check, Credential, HealthConfig, PlaneChoice, Promote, ReleaseBin, Sandbox, ServiceConfig,
    SwitchConfig,
};
use crate::model::colour::{ByColour, Colour};
use crate::model::hooks::{Hook, Hooks};
use crate::model::proxy_protocol::ProxyProtocol;

/// The text of an app file for `app`: what differs from the defaults, and the rest as commented hints. It
/// reads back as the same app. The format has one command for both colours, so of an app whose colours
/// differ in more than `{colour}` and `{port}` it tells the blue one's.
#[must_use]
pub fn render_new(app: &App) -> String {
    let mut page = Page(format!(
        "# The app {name}. After a change: dorc check, then dorc update {name}.\n\n",
        name = app.name
    ));
    let default = defaults::new_app(app.name.clone(), Vec::new(), PathBuf::new(), app.release_bin.clone());
    page.key("listen", &listen(&app.listen));
    page.key("release_dir", &quoted(&app.release_dir.to_string_lossy()));
    let (ReleaseBin::Inside(bin) | ReleaseBin::Outside(bin)) = &app.release_bin;
    page.key("release_bin", &quoted(&bin.to_string_lossy()));
    let plane = Some(quoted(plane(app.plane))).filter(|_| app.plane != default.plane);
    page.either("plane", plane, "\"auto\"", "auto, kernel or tcp");
    let deployers = app.deployers.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let deployers = Some(format!("[{deployers}]")).filter(|_| !app.deployers.is_empty());
    page.either("deployers", deployers, "[\"ci\"]", "users who may upload, switch and roll back this app");
    service(&mut page, &app.service, &default.service);
    health(&mut page, &app.health, &default.health);
    hooks(&mut page, &app.hooks, &default.hooks);
    switch(&mut page, &app.switch, &default.switch);
    page.section("release");
    let keep = app.release.keep;
    page.either(
        "keep",
        differs(&keep, &default.release.keep, usize::to_string),
        "5",
        "good releases that stay",
    );
    let settle = differs(&app.release.settle, &default.release.settle, duration);
    page.either("settle", settle, "\"1s\"", "quiet time before an upload counts as finished");
    let keys = app.release.signed_by.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(", ");
    let keys = Some(format!("[{keys}]")).filter(|_| !app.release.signed_by.is_empty());
    page.either("signed_by", keys, "[]", "minisign keys, if each file has to be signed");
    page.0
}

fn service(page: &mut Page, service: &ServiceConfig, default: &ServiceConfig) {
    page.section("service");
    let start = differs(&service.start.blue, &default.start.blue, |words| command(words));
    page.either("start", start, "\"{bin} --port {port}\"", "$PORT is set too");
    let ports = service.ports.map(|ports| format!("{{ blue = {}, green = {} }}", ports.blue, ports.green));
    page.either("ports", ports, "{ blue = 8081, green = 8082 }", "else two free ones");
    let reload = service.reload.as_ref().map(|reload| command(&reload.blue));
    page.either("reload", reload, "\"{bin} --reload\"", "else SIGHUP");
    let env: Vec<String> =
        service.env.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    let env = Some(format!("{{ {} }}", env.join(", "))).filter(|_| !env.is_empty());
    page.either("env", env, "{ RUST_LOG = \"info\" }", "");
    let env_file = service.env_file.as_ref().map(|path| quoted(&path.to_string_lossy()));
    page.either("env_file", env_file, "\"/etc/dorc/web.env\"", "secrets, readable to root only");
    let credentials: Vec<String> = service.credentials.iter().map(credential).collect();
    let credentials = Some(format!("{{ {} }}", credentials.join(", "))).filter(|_| !credentials.is_empty());
    page.either("credentials", credentials, "{ db = \"/etc/dorc/db\" }", "files in $CREDENTIALS_DIRECTORY");
    let user = service.user.as_deref().map(quoted);
    page.either("user", user, "\"www-data\"", "else a dynamic user of the app's own");
    let working_dir = service.working_dir.as_ref().and_then(working_dir);
    page.either("working_dir", working_dir, "\"/srv/www/web\"", "else the release itself, read-only");
    page.either("memory_max", service.memory_max.as_deref().map(quoted), "\"512M\"", "");
    let proxy = service.proxy_protocol.map(|version| {
        quoted(match version {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        })
    });
    page.either("proxy_protocol", proxy, "\"v2\"", "tells it who its clients are, on the tcp plane");
    let sandbox = differs(&service.sandbox, &default.sandbox, |sandbox| {
        quoted(match sandbox {
            Sandbox::Strict => "strict",
            Sandbox::Off => "off",
        })
    });
    page.either("sandbox", sandbox, "\"strict\"", "strict or off");
    let notify = differs(&service.notify, &default.notify, bool::to_string);
    page.either("notify", notify, "true", "the program tells systemd itself when it is ready");
}

fn credential((name, credential): (&String, &Credential)) -> String {
    let path = quoted(&credential.path.to_string_lossy());
    let path = if credential.encrypted { format!("{{ encrypted = {path} }}") } else { path };
    format!("{} = {path}", quoted(name))
}

fn health(page: &mut Page, health: &HealthConfig, default: &HealthConfig) {
    page.section("health");
    let (path, host, probe) = match &health.check {
        Check::Http { path, host } => (Some(path), Some(host), None),
        Check::Command(words) => (None, None, Some(words)),
        Check::Port { .. } => (None, None, None),
    };
    page.either("path", path.map(|path| quoted(path)), "\"/healthz\"", "an HTTP GET that must say 2xx");
    let host = host.filter(|host| *host != defaults::HOST).map(|host| quoted(host));
    page.either("host", host, "\"localhost\"", "");
    page.either(
        "command",
        probe.map(|words| command(words)),
        "\"{bin} --healthy {port}\"",
        "in place of path",
    );
    page.either("interval", differs(&health.interval, &default.interval, duration), "\"500ms\"", "");
    page.either("timeout", differs(&health.timeout, &default.timeout, duration), "\"2s\"", "");
    page.either("successes", differs(&health.successes, &default.successes, u32::to_string), "2", "in a row");
    page.either(
        "deadline",
        differs(&health.deadline, &default.deadline, duration),
        "\"60s\"",
        "from start to ready",
    );
}

fn hooks(page: &mut Page, hooks: &Hooks, default: &Hooks) {
    page.section("hooks");
    for hook in Hook::ALL {
        let (example, comment) = match hook {
            Hook::Prepare => ("\"{bin} migrate\"", "before a new release is started"),
            Hook::Verify => ("\"{bin} smoke-test {port}\"", "before a new release can get traffic"),
            Hook::Switched => ("\"{bin} announce\"", "when it has got the traffic"),
            Hook::Bake => ("\"{bin} watch {port}\"", "the same, and back if it says no"),
            Hook::Failed => ("\"{bin} alert\"", "when it failed; $DORC_REASON says why"),
        };
        let chosen = hooks.commands.get(&hook).map(|words| command(words));
        page.either(hook.name(), chosen, example, comment);
    }
    page.either("deadline", differs(&hooks.deadline, &default.deadline, duration), "\"5m\"", "for each");
}

fn switch(page: &mut Page, switch: &SwitchConfig, default: &SwitchConfig) {
    page.section("switch");
    let promote = differs(&switch.promote, &default.promote, |promote| {
        quoted(match promote {
            Promote::Manual => "manual",
            Promote::Auto => "auto",
        })
    });
    page.either("promote", promote, "\"manual\"", "auto: ready is enough");
    let drain =
        differs(&switch.drain, &default.drain, |drain| drain.as_ref().map_or(quoted("forever"), duration));
    page.either("drain", drain, "\"30s\"", "what old connections get");
    page.either("bake", differs(&switch.bake, &default.bake, duration), "\"30s\"", "watched for this long");
    let failover = differs(&switch.failover, &default.failover, bool::to_string);
    page.either("failover", failover, "false", "true: one that keeps ending later is left, too");
    let steps = differs(&switch.canary, &default.canary, |steps| {
        let steps = steps
            .iter()
            .map(|step| quoted(&format!("{} {}", step.share, humantime::format_duration(step.time))));
        format!("[{}]", steps.collect::<Vec<_>>().join(", "))
    });
    page.either("canary", steps, "[]", "for example [\"5% 10m\", \"25% 1h\"]");
    page.either(
        "hold",
        differs(&switch.hold, &default.hold, duration),
        "\"10s\"",
        "for a service that restarts",
    );
}

/// The text as it grows.
struct Page(String);

impl Page {
    fn section(&mut self, name: &str) {
        self.line(&format!("\n[{name}]"));
    }

    fn key(&mut self, name: &str, value: &str) {
        self.line(&format!("{name} = {value}"));
    }

    /// The value that was chosen, or else a comment that says what could be.
    fn either(&mut self, name: &str, chosen: Option<String>, example: &str, comment: &str) {
        match chosen {
            Some(value) => self.key(name, &value),
            None if comment.is_empty() => self.line(&format!("# {name} = {example}")),
            None => self.line(&format!("{:<40} # {comment}", format!("# {name} = {example}"))),
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{line}");
    }
}

fn differs<T: PartialEq>(chosen: &T, default: &T, show: impl FnOnce(&T) -> String) -> Option<String> {
    (chosen != default).then(|| show(chosen))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn command(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| word_as_written(word)).collect();
    quoted(&words.join(" "))
}

/// Braces mean something to a shell and nothing here, so placeholders stay readable.
fn word_as_written(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "{}-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { Cow::Borrowed(word) } else { shell_words::quote(word) }
}

fn duration(duration: &Duration) -> String {
    quoted(&humantime::format_duration(*duration).to_string())
}

fn listen(addresses: &[SocketAddr]) -> String {
    let one = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => address.port().to_string(),
        _ => quoted(&address.to_string()),
    };
    match addresses {
        [address] => one(address),
        several => format!("[{}]", several.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

fn plane(plane: PlaneChoice) -> &'static str {
    match plane {
        PlaneChoice::Auto => "auto",
        PlaneChoice::Kernel => "kernel",
        PlaneChoice::Tcp => "tcp",
        PlaneChoice::Http => "http",
    }
}

/// The one path that stands for both: with `{colour}` in it, or the folder of the two.
fn working_dir(dirs: &ByColour<PathBuf>) -> Option<String> {
    let parent = dirs.blue.parent()?;
    let is_folder_of_both = *dirs == ByColour::from_fn(|colour| parent.join(colour.name()));
    if is_folder_of_both && parent.parent().is_some() {
        return Some(quoted(&parent.to_string_lossy()));
    }
    let (blue, green) = (dirs.blue.to_str()?, dirs.green.to_str()?);
    let name = Colour::Blue.name();
    blue.match_indices(name).find_map(|(at, _)| {
        let with = |word: &str| format!("{}{word}{}", &blue[..at], &blue[at + name.len()..]);
        (with(Colour::Green.name()) == green).then(|| quoted(&with("{colour}")))
    })
}
