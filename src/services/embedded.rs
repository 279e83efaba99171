//! The embedded supervisor: services as child processes, for `dorc up` and `dorc demo`.
