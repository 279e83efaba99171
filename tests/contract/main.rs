//! The same cases over everything that stands behind a seam.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod embedded;
mod services_cases;
mod systemd;
mod systemd_only;
