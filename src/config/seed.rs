//! The first dorc's app file as it is written.
