//! The deployment of one app as a state machine.
