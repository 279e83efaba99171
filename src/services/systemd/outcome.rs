//! How a service ended, from systemd's properties to a person's words.

use std::collections::HashMap;
use std::time::Duration;

use zbus::{OwnedVariant, Variant};

use crate::model::app::{Sandbox, Service};
use crate::model::health::Exit;

/// What systemd exits with where it can't execute the program.
const EXIT_EXEC: i32 = 203;

/// The properties of a unit that tell of its ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) active: String,
    pub(super) sub: String,
    pub(super) result: String,
    /// `si_code` of the end of its main process.
    pub(super) code: i32,
    /// The exit status or the signal.
    pub(super) status: i32,
    /// Microseconds of the monotonic clock; 0: not yet.
    pub(super) started: u64,
    pub(super) exited: u64,
    pub(super) restarts: u32,
}

impl Outcome {
    /// Takes over what `changed` says.
    pub(super) fn update(&mut self, changed: &HashMap<String, OwnedVariant>) {
        for (name, value) in changed {
            match (name.as_str(), &**value) {
                ("ActiveState", Variant::Str(text)) => self.active = text.to_string(),
                ("SubState", Variant::Str(text)) => self.sub = text.to_string(),
                ("Result", Variant::Str(text)) => self.result = text.to_string(),
                ("ExecMainCode", Variant::I32(code)) => self.code = *code,
                ("ExecMainStatus", Variant::I32(status)) => self.status = *status,
                ("ExecMainStartTimestampMonotonic", Variant::U64(time)) => self.started = *time,
                ("ExecMainExitTimestampMonotonic", Variant::U64(time)) => self.exited = *time,
                ("NRestarts", Variant::U32(count)) => self.restarts = *count,
                _ => {}
            }
        }
    }

    /// Whether it is down although nobody told it to end.
    pub(super) fn ended(&self) -> bool {
        self.sub.starts_with("auto-restart") || self.active == "failed"
    }

    /// The end that the properties tell of.
    pub(super) fn exit(&self) -> Exit {
        let up = self.exited.checked_sub(self.started).filter(|_| self.exited != 0 && self.started != 0);
        Exit { how: self.how(), after: up.map(Duration::from_micros) }
    }

    /// The end of a start of `service`.
    pub(super) fn failure_of(&self, service: &Service) -> Exit {
        let mut exit = self.exit();
        if self.code == libc::CLD_EXITED && self.status == EXIT_EXEC && service.sandbox == Sandbox::Strict {
            exit.how +=
                "; in the default sandbox it can't reach /home and /root, also not for an interpreter";
        }
        exit
    }

    fn how(&self) -> String {
        let process = match self.code {
            libc::CLD_EXITED => Some(exit_status(self.status)),
            libc::CLD_KILLED => Some(format!("killed by {}", signal_name(self.status))),
            libc::CLD_DUMPED => Some(format!("killed by {} (core dumped)", signal_name(self.status))),
            _ => None,
        };
        let systemd = match self.result.as_str() {
            "" | "success" | "exit-code" | "signal" | "core-dump" => None,
            "timeout" => Some("not ready in time"),
            "protocol" => Some("ended before it said that it is ready"),
            "oom-kill" => Some("out of memory"),
            "watchdog" => Some("its watchdog was not fed"),
            other => Some(other),
        };
        match (process, systemd) {
            (Some(process), None) => process,
            (Some(process), Some(systemd)) => format!("{process} ({systemd})"),
            (None, Some(systemd)) => format!("systemd: {systemd}"),
            (None, None) => "ended, systemd does not say how".into(),
        }
    }
}

/// Statuses above 200 are systemd's own: it failed before the program ran.
fn exit_status(status: i32) -> String {
    let meaning = match status {
        200 => "systemd could not change to the working directory",
        202 => "systemd could not set up its file descriptors",
        EXIT_EXEC => "systemd could not execute the program",
        205 => "systemd could not set its limits",
        213 | 214 => "systemd could not set its scheduling",
        216 | 217 => "systemd could not find or become its user or group",
        218 => "systemd could not set its capabilities",
        219 => "systemd could not set up its cgroup",
        226 => "systemd could not set up its sandbox",
        228 => "systemd could not set up its system call filter",
        238 => "systemd could not set up its state directory",
        _ => return format!("exit status {status}"),
    };
    format!("exit status {status} ({meaning})")
}

/// `SIGSEGV` for 11.
fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 20] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGSYS, "SIGSYS (a system call that its sandbox forbids)"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(code: i32, status: i32, result: &str) -> String {
        Outcome {
            code,
            status,
            result: result.into(),
            started: 1_000_000,
            exited: 1_200_000,
            ..Outcome::default()
        }
        .exit()
        .to_string()
    }

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(how(libc::CLD_EXITED, 3, "exit-code"), "exit status 3, 0.2 s after its start");
        assert!(how(libc::CLD_EXITED, 203, "exit-code").contains("could not execute"));
        assert!(how(libc::CLD_KILLED, libc::SIGSEGV, "signal").starts_with("killed by SIGSEGV,"));
        assert!(how(libc::CLD_KILLED, libc::SIGKILL, "oom-kill").contains("SIGKILL (out of memory)"));
        assert!(how(0, 0, "start-limit-hit").starts_with("systemd: start-limit-hit"));
    }
}
