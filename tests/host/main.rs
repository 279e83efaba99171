//! Scenarios on a real systemd: dorc is installed as a user would and used as a user does.

#[path = "../support/host.rs"]
mod host;

mod apps;
mod foreign;
mod harness;
mod install;
mod load;
mod moved;
mod programs;
mod refusals;
mod registered;
mod uploads;
mod user;
