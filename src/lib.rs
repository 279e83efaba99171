//! dorc deploys plain backend programs on Linux with systemd, blue–green.
//!
//! The modules in the order of their layers; each may use those above it as ARCHITECTURE.md draws it.

pub mod accounts;
pub mod model;

pub mod config;
pub mod health;
pub mod releases;
pub mod routing;
pub mod services;
pub mod state;

pub mod engine;

pub mod control;
pub mod daemon;

pub mod cli;
