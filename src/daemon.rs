//! The daemon: the only place that wires.
