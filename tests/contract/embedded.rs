//! The embedded supervisor, with real processes.

use std::path::{Path, PathBuf};

use dorc::services::embedded::Embedded;
use tempfile::TempDir;

struct Bed {
    services: Embedded,
    root: TempDir,
}

impl Bed {
    fn services(&self) -> &Embedded {
        &self.services
    }

    fn root(&self) -> &Path {
        self.root.path()
    }
}

async fn bed() -> Option<Bed> {
    let root = tempfile::tempdir().unwrap();
    let services = Embedded::new(PathBuf::from(env!("CARGO_BIN_EXE_dorc")), root.path().join("services"));
    Some(Bed { services, root })
}

crate::services_contract!(bed);
