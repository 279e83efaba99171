//! The cases of services over real systemd. They write units and dorc's folder, so they run inside a test host only.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says when it is skipped")]

use std::env;
use std::path::Path;

use dorc::services::systemd::Systemd;
use dorc::services::unit::Places;

/// What a test host sets for the programs that it runs.
pub const TEST_HOST: &str = "DORC_TEST_HOST";

pub struct Bed {
    systemd: Systemd,
    places: Places,
}

impl Bed {
    pub fn services(&self) -> &Systemd {
        &self.systemd
    }

    pub fn root(&self) -> &Path {
        &self.places.state
    }
}

pub async fn bed() -> Option<Bed> {
    if env::var_os(TEST_HOST).is_none() || !Systemd::is_booted() {
        eprintln!("skipped: not inside a test host ({TEST_HOST} is not set)");
        return None;
    }
    let places = Places::default();
    let systemd = Systemd::connect(places.clone()).await.expect("systemd answers");
    Some(Bed { systemd, places })
}

crate::services_contract!(bed);
