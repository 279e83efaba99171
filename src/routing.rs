//! How connections reach the active service: the seam that all planes share.

pub mod connections;
mod course;
pub mod kernel;
pub mod tcp;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::colour::Colour;
use crate::model::proxy_protocol::ProxyProtocol;

pub use course::{Canary, Course};

/// Where connections are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The colour that it belongs to.
    pub colour: Colour,
    /// The service's own address.
    pub address: SocketAddr,
    /// How it is to be told who its clients are, by a plane that passes the bytes on.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Target {
    /// One that is told nothing of its clients.
    #[must_use]
    pub const fn new(colour: Colour, address: SocketAddr) -> Self {
        Self { colour, address, proxy_protocol: None }
    }
}

/// Which connections are to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those with nothing unanswered and no byte either way for at least this long.
    Quiet(Duration),
    /// All of them.
    All,
}

/// The route of one app: its listen addresses and the service behind them.
pub trait Route: Send + Sync + 'static {
    /// Sends every connection that arrives from now on to `target`; `None`: to nobody, they are held.
    ///
    /// # Errors
    /// The route stays where it was.
    fn point_at(&self, target: Option<Target>) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends the clients of a share to another service, each by its address, and always the same ones; `None`: nobody.
    /// Where the route points nowhere yet, it waits for that. `point_at` to that service, or to nobody, ends it in one
    /// step with the move.
    ///
    /// # Errors
    /// It stays as it was.
    fn split(&self, canary: Option<Canary>) -> impl Future<Output = io::Result<()>> + Send;

    /// From now on connections that arrive are held, wherever the route points, for `time` at most and then as long as for
    /// a service that is restarting; `None`: they are not any more, and those who waited go on.
    ///
    /// # Errors
    /// It stays as it was.
    fn hold(&self, time: Option<Duration>) -> impl Future<Output = io::Result<()>> + Send;

    /// Where connections go now.
    fn pointing_at(&self) -> Option<Target>;

    /// How many connections the service of that colour has through this route. Like `close` it has to answer soon:
    /// a drain looks at its deadline between two answers.
    fn open_connections(&self, colour: Colour) -> impl Future<Output = usize> + Send;

    /// Closes connections to the service of that colour and says how many.
    fn close(&self, colour: Colour, which: Which) -> impl Future<Output = usize> + Send;
}
