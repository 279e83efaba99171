//! Scenarios on a real systemd: dorc is installed as a user would and used as a user does.

#[path = "../support/host.rs"]
mod host;

mod apps;
mod files;
mod foreign;
mod at_rest;
mod broken;
mod drain;
mod harness;
mod hostile;
mod install;
mod killed;
mod load;
mod moved;
mod programs;
mod refusals;
mod reboot;
mod registered;
mod under_load;
mod together;
mod uploads;
mod user;
