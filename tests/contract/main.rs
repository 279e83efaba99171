//! The same cases over everything that stands behind a seam.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../support/fakes.rs"]
#[allow(dead_code, reason = "each binary uses a part of it")]
mod stand_ins;

mod embedded;
mod fakes;
mod kernel;
mod route_cases;
mod services_cases;
mod systemd;
mod systemd_only;
mod tcp;
