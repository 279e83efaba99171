//! Whether systemd understood a unit file as it was meant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use zbus::{OwnedVariant, Variant};

use crate::model::app::{Credential, Sandbox, Service};
use crate::model::hooks::Hook;
use crate::services::ServiceError;
use crate::services::unit::{Places, hook_unit_name, unit_name, user_of};

use super::bus::{self, Bus, supervisor};
use super::proxies::ExecCommand;

/// A unit as it was meant.
pub(super) struct Meant<'a> {
    pub(super) service: &'a Service,
    pub(super) name: String,
    pub(super) file: PathBuf,
    kind: &'static str,
    restart: &'static str,
}

impl<'a> Meant<'a> {
    /// That of a service.
    pub(super) fn service(service: &'a Service, places: &Places) -> Self {
        Self {
            service,
            name: unit_name(&service.id),
            file: places.unit_file(&service.id),
            kind: if service.notify { "notify" } else { "exec" },
            restart: "always",
        }
    }

    /// That of a hook.
    pub(super) fn hook(hook: Hook, service: &'a Service, places: &Places) -> Self {
        let (name, file) = (hook_unit_name(&service.id, hook), places.hook_file(&service.id, hook));
        Self { service, name, file, kind: "oneshot", restart: "no" }
    }
}

/// Compares the loaded unit with what was meant.
pub(super) async fn verify(bus: &Bus, meant: &Meant<'_>) -> Result<(), ServiceError> {
    let Meant { service, name, file, .. } = meant;
    let unit = bus.unit(name).await?;
    let state = unit.load_state().await?;
    if state != "loaded" {
        let (_, text) = unit.load_error().await?;
        let why = if text.is_empty() { state } else { format!("{state}: {text}") };
        return Err(supervisor(format!(
            "{name} could not be loaded ({why}); `systemd-analyze verify {name}` says more"
        )));
    }
    let loaded = unit.fragment_path().await?;
    if Path::new(&loaded) != file {
        return Err(supervisor(format!(
            "{name} was written to {} but loaded from {loaded}; delete that one, it hides dorc's",
            file.display()
        )));
    }
    let drop_ins = unit.drop_in_paths().await?;
    drop(unit);
    let mut wrong = Vec::new();
    bus.read(name, &[bus::SERVICE], |properties| {
        start_command(service, properties, &mut wrong);
        credentials(service, properties, &mut wrong);
        // A drop-in is the user's word, and may change all but what is run.
        if drop_ins.is_empty() {
            setting(meant, properties, &mut wrong);
        }
    })
    .await?;
    if wrong.is_empty() {
        return Ok(());
    }
    let cause =
        if drop_ins.is_empty() { String::new() } else { format!(" (drop-ins: {})", drop_ins.join(", ")) };
    Err(supervisor(format!("{name} was not taken as it was meant: {}{cause}", wrong.join("; "))))
}

fn start_command(service: &Service, properties: &HashMap<String, OwnedVariant>, wrong: &mut Vec<String>) {
    let commands: Vec<ExecCommand> = properties
        .get("ExecStart")
        .and_then(|value| Vec::try_from(value.try_clone().ok()?).ok())
        .unwrap_or_default();
    // systemd halves the doubled `$` only when it executes.
    let (program, arguments) = service.start.split_first().map_or(("", &[][..]), |(head, tail)| (head, tail));
    let meant =
        std::iter::once(program.to_owned()).chain(arguments.iter().map(|word| word.replace('$', "$$")));
    let meant: Vec<String> = meant.collect();
    let taken = matches!(commands.as_slice(), [(path, words, false, ..)]
        if *words == meant && (path == program || !program.starts_with('/')));
    if !taken {
        let found: Vec<&[String]> = commands.iter().map(|command| command.1.as_slice()).collect();
        wrong.push(format!("it would run {found:?} instead of {meant:?}"));
    }
}

/// Drop-ins may add some.
fn credentials(service: &Service, properties: &HashMap<String, OwnedVariant>, wrong: &mut Vec<String>) {
    for (name, Credential { path, encrypted }) in &service.credentials {
        let key = if *encrypted { "LoadCredentialEncrypted" } else { "LoadCredential" };
        let loaded: Vec<(String, String)> = properties
            .get(key)
            .and_then(|value| Vec::try_from(value.try_clone().ok()?).ok())
            .unwrap_or_default();
        if !loaded.iter().any(|(id, from)| id == name && Path::new(from) == path) {
            wrong.push(format!("{key} has no {name}"));
        }
    }
}

fn setting(meant: &Meant<'_>, properties: &HashMap<String, OwnedVariant>, wrong: &mut Vec<String>) {
    let Meant { service, kind, restart, .. } = meant;
    let user = user_of(service);
    let directory = service.working_dir.to_string_lossy();
    let mut meant = vec![
        ("Type", Variant::from(*kind)),
        ("Restart", (*restart).into()),
        ("KillMode", "mixed".into()),
        ("User", user.as_str().into()),
        ("DynamicUser", service.user.is_none().into()),
        ("WorkingDirectory", directory.as_ref().into()),
        ("RootDirectory", "".into()),
    ];
    if service.sandbox == Sandbox::Strict {
        meant.extend([
            ("CapabilityBoundingSet", Variant::from(0_u64)),
            ("AmbientCapabilities", 0_u64.into()),
            ("RestrictNamespaces", 0_u64.into()),
            ("UMask", 0o077_u32.into()),
            ("ProtectSystem", "strict".into()),
            ("ProtectHome", "tmpfs".into()),
            ("ProtectProc", "invisible".into()),
        ]);
        meant.extend(YES.map(|name| (name, true.into())));
    }
    for (name, meant) in meant {
        match properties.get(name) {
            Some(found) if **found == meant => {}
            Some(found) => wrong.push(format!("{name} is {} and not {meant}", **found)),
            // An older systemd; it has said so in the journal, and the rest of the sandbox holds.
            None => tracing::debug!("this systemd knows no {name}"),
        }
    }
}

/// What the strict sandbox switches on.
const YES: [&str; 15] = [
    "NoNewPrivileges",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateUsers",
    "PrivateIPC",
    "PrivateMounts",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "LockPersonality",
    "RestrictRealtime",
    "RestrictSUIDSGID",
];
