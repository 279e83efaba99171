//! The register of connections that pass through dorc.
