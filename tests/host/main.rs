//! Scenarios on a real systemd: dorc is installed as a user would and used as a user does.

#[path = "../support/host.rs"]
mod host;

mod apps;
mod foreign;
mod harness;
mod hostile;
mod install;
mod load;
mod moved;
mod programs;
mod refusals;
mod registered;
mod together;
mod uploads;
mod user;
