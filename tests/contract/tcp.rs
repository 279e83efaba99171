//! The tcp plane, between real sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dorc::model::colour::{ByColour, Colour};
use dorc::routing::tcp::{Plane, TcpRoute};
use dorc::routing::{Route, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::route_cases::{Bed, ask_colour, initial};

struct TcpBed {
    route: TcpRoute,
    _plane: Plane,
    address: SocketAddr,
    services: ByColour<SocketAddr>,
    asked: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// Answers each end of a line, says its colour when it is asked for, and tells of each question mark, which it does not answer.
async fn serve(listener: TcpListener, colour: Colour, asked: Arc<Notify>) {
    let mut connections = JoinSet::new();
    while let Ok((mut socket, _)) = listener.accept().await {
        let asked = Arc::clone(&asked);
        connections.spawn(async move {
            let mut byte = [0];
            while let Ok(1) = socket.read(&mut byte).await {
                if byte == *b"?" {
                    asked.notify_one();
                } else if byte == *b"c" {
                    let _ = socket.write_all(&[initial(colour)]).await;
                } else if byte == *b"\n" && socket.write_all(b"\n").await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn bed() -> TcpBed {
    let mut tasks = JoinSet::new();
    let asked = Arc::new(Notify::new());
    let mut services = ByColour::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
    for colour in Colour::BOTH {
        let listener = TcpListener::bind(services[colour]).await.unwrap();
        services[colour] = listener.local_addr().unwrap();
        tasks.spawn(serve(listener, colour, Arc::clone(&asked)));
    }
    let plane = Plane::start(1).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let route = plane.open(&[any], Duration::from_secs(20), Vec::new()).unwrap();
    let address = route.listeners()[0].0;
    TcpBed { route, _plane: plane, address, services, asked, _tasks: tasks }
}

impl Bed for TcpBed {
    type Client = TcpStream;

    fn route(&self) -> &impl Route {
        &self.route
    }

    fn target(&self, colour: Colour) -> Target {
        Target::new(colour, self.services[colour])
    }

    async fn connect(&self, busy: bool) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        // An answer shows that it got through.
        client.write_all(b"\n").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        if busy {
            client.write_all(b"?").await.unwrap();
            // It went through the plane, which knows by now that an answer is owed.
            self.asked.notified().await;
        }
        client
    }

    async fn colour_for(&self, client: IpAddr) -> Colour {
        ask_colour(client, self.address).await
    }

    async fn closed(&self, mut client: TcpStream) {
        let end = tokio::time::timeout(Duration::from_secs(20), client.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
    }
}

crate::route_contract!(bed);
