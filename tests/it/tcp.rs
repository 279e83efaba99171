//! The tcp plane between real sockets.

mod canary;
mod close;
mod exhausted;
mod headers;
mod hold;
mod listen;
mod relay;
mod switch;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::routing::tcp::{Plane, TcpRoute};
use dorc::routing::{Route, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plane with one route. The fields are dropped in this order.
struct Setup {
    route: TcpRoute,
    plane: Plane,
    address: SocketAddr,
}

impl Setup {
    fn with_hold(hold: Duration) -> Self {
        Self::with_threads(1, hold)
    }

    fn with_threads(threads: usize, hold: Duration) -> Self {
        let plane = Plane::start(threads).unwrap();
        let route = plane.open(&[local(0)], hold, Vec::new()).unwrap();
        let address = route.listeners()[0].0;
        Self { route, plane, address }
    }

    async fn pointing_at(service: &Service) -> Self {
        let setup = Self::with_hold(PATIENCE);
        setup.point_at(Colour::Blue, service.address).await;
        setup
    }

    async fn point_at(&self, colour: Colour, address: SocketAddr) {
        self.route.point_at(Some(Target::new(colour, address))).await.unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// A service that treats each of its connections in the same way.
struct Service {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        Self::on(TcpListener::bind(local(0)).await.unwrap(), serve)
    }

    fn on<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket));
            }
        });
        Self { address, task }
    }

    /// Sends everything back.
    async fn echo() -> Self {
        Self::start(echo).await
    }

    /// Says its name to each line that it gets.
    async fn named(name: &'static str) -> Self {
        Self::start(move |socket| answer(socket, name)).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(mut socket: TcpStream) {
    let (mut read, mut write) = socket.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn answer(mut socket: TcpStream, name: &'static str) {
    let mut byte = [0; 1];
    while let Ok(1) = socket.read(&mut byte).await {
        if byte == *b"\n" && socket.write_all(name.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Sends `question` and waits for exactly `answer`.
async fn ask(socket: &mut TcpStream, question: &str, answer: &str) {
    socket.write_all(question.as_bytes()).await.unwrap();
    expect(socket, answer).await;
}

async fn expect(socket: &mut TcpStream, answer: &str) {
    let mut got = vec![0; answer.len()];
    within(socket.read_exact(&mut got)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), answer);
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it should not take that long")
}

/// Waits until something that is only to be seen from outside has come true.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    within(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
