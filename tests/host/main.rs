//! Scenarios on a real systemd: dorc is installed as a user would and used as a user does.

#[path = "../support/host.rs"]
mod host;

mod apps;
mod at_rest;
mod bake;
mod broken;
mod canary;
mod contract;
mod credentials;
mod drain;
mod environment;
mod files;
mod fleet;
mod foreign;
mod from_afar;
mod handed_over;
mod harness;
mod hooks;
mod hostile;
mod install;
mod jobs;
mod kernel;
mod kernel_programs;
mod killed;
mod load;
mod lost;
mod measured;
mod moved;
mod pause;
mod programs;
mod reboot;
mod refusals;
mod registered;
mod rights;
mod together;
mod under_load;
mod uploads;
mod user;
