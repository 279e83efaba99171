//! The same cases over everything that stands behind a seam.

mod embedded;
mod services_cases;
