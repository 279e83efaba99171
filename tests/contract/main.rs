//! The same cases over everything that stands behind a seam.

mod services_cases;
mod systemd;
mod systemd_only;
