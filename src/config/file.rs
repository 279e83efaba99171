//! The app file as it is written.
