//! Tells that something below a path changed.
