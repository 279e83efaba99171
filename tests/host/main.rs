//! Scenarios on a real systemd: dorc is installed as a user would and used as a user does.

#[path = "../support/host.rs"]
mod host;

mod foreign;
mod harness;
mod load;
mod programs;
mod refusals;
mod user;
