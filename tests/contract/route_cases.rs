//! What every plane has to do, as cases over the seam: the fake one and the real ones run the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::model::share::Share;
use dorc::routing::{Canary, Route, Target, Which};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::services_cases::eventually;

/// A route and the world around it: two services that never answer, and clients.
pub trait Bed {
    type Client;

    fn route(&self) -> &impl Route;

    /// The target of the service of that colour.
    fn target(&self, colour: Colour) -> Target;

    /// A client that has got through to the service, which owes it an answer if it is `busy`.
    fn connect(&self, busy: bool) -> impl Future<Output = Self::Client>;

    /// The colour of the service that answers a client from that address.
    fn colour_for(&self, client: IpAddr) -> impl Future<Output = Colour>;

    /// Waits until the client's connection is closed.
    fn closed(&self, client: Self::Client) -> impl Future<Output = ()>;
}

/// Makes a test of each case.
#[macro_export]
macro_rules! route_contract {
    ($bed:path) => {
        $crate::route_contract!($bed:
            points_nowhere_at_first, says_where_it_points, a_connection_stays_with_its_colour,
            closes_all_of_one_colour, closes_what_is_quiet_only, who_left_is_not_counted,
            a_canary_gets_its_share, a_client_stays_on_its_side, a_move_ends_the_canary,
            a_canary_waits_for_a_target, holds_who_comes_wherever_it_points
        );
    };
    ($bed:path: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::route_cases::$case(&$bed().await).await;
            }
        )+
    };
}

async fn point_at(bed: &impl Bed, colour: Colour) {
    bed.route().point_at(Some(bed.target(colour))).await.unwrap();
}

async fn open(bed: &impl Bed, colour: Colour, count: usize) {
    let is_so = || async move { (bed.route().open_connections(colour).await == count).then_some(()) };
    eventually(&format!("{colour} has {count} connections"), is_so).await;
}

pub async fn points_nowhere_at_first(bed: &impl Bed) {
    assert_eq!(bed.route().pointing_at(), None);
    for colour in Colour::BOTH {
        assert_eq!(bed.route().open_connections(colour).await, 0);
        assert_eq!(bed.route().close(colour, Which::All).await, 0);
    }
}

pub async fn says_where_it_points(bed: &impl Bed) {
    for colour in [Colour::Green, Colour::Blue, Colour::Blue, Colour::Green] {
        point_at(bed, colour).await;
        assert_eq!(bed.route().pointing_at(), Some(bed.target(colour)));
    }
    bed.route().point_at(None).await.unwrap();
    assert_eq!(bed.route().pointing_at(), None);
}

pub async fn a_connection_stays_with_its_colour(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    let _old = bed.connect(true).await;
    open(bed, Colour::Green, 1).await;
    point_at(bed, Colour::Blue).await;
    let _new = bed.connect(true).await;
    open(bed, Colour::Blue, 1).await;
    assert_eq!(bed.route().open_connections(Colour::Green).await, 1);
}

pub async fn closes_all_of_one_colour(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    let (one, other) = (bed.connect(true).await, bed.connect(false).await);
    point_at(bed, Colour::Blue).await;
    let _kept = bed.connect(true).await;
    open(bed, Colour::Green, 2).await;
    open(bed, Colour::Blue, 1).await;

    assert_eq!(bed.route().close(Colour::Green, Which::All).await, 2);
    bed.closed(one).await;
    bed.closed(other).await;
    open(bed, Colour::Green, 0).await;
    assert_eq!(bed.route().open_connections(Colour::Blue).await, 1);
}

pub async fn closes_what_is_quiet_only(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    let (_busy, idle) = (bed.connect(true).await, bed.connect(false).await);
    open(bed, Colour::Green, 2).await;
    let route = bed.route();
    let quiet = Which::Quiet(Duration::from_millis(20));
    let one_is_closed = || async move { (route.close(Colour::Green, quiet).await == 1).then_some(()) };
    eventually("one is quiet", one_is_closed).await;
    bed.closed(idle).await;
    open(bed, Colour::Green, 1).await;
    assert_eq!(route.close(Colour::Green, Which::Quiet(Duration::ZERO)).await, 0, "an answer is owed");
}

pub async fn who_left_is_not_counted(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    let client = bed.connect(false).await;
    open(bed, Colour::Green, 1).await;
    drop(client);
    open(bed, Colour::Green, 0).await;
}

async fn split(bed: &impl Bed, share: &str) -> Canary {
    let canary = Canary { target: bed.target(Colour::Blue), share: share.parse::<Share>().unwrap() };
    bed.route().split(Some(canary)).await.unwrap();
    canary
}

const NOBODY: [IpAddr; 0] = [];

/// Clients from all over.
fn clients(count: u32) -> impl Iterator<Item = IpAddr> {
    (0..count).map(|n| Ipv4Addr::from(0x7f01_0001 + n * 257).into())
}

/// Which of them come to blue; the others come to green.
async fn on_blue(bed: &impl Bed, count: u32) -> Vec<IpAddr> {
    let mut on_blue = Vec::new();
    for client in clients(count) {
        if bed.colour_for(client).await == Colour::Blue {
            on_blue.push(client);
        }
    }
    on_blue
}

pub async fn a_canary_gets_its_share(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    assert_eq!(on_blue(bed, 50).await, NOBODY);
    let canary = split(bed, "10%").await;
    assert_eq!(bed.route().pointing_at(), Some(bed.target(Colour::Green)));
    let those = on_blue(bed, 1500).await;
    assert!((120..=180).contains(&those.len()), "{}", those.len());
    // Every plane has the same clients on the same side.
    assert_eq!(those, clients(1500).filter(|client| canary.takes(*client)).collect::<Vec<_>>());
}

pub async fn a_client_stays_on_its_side(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    split(bed, "20%").await;
    let first = on_blue(bed, 200).await;
    assert_eq!(on_blue(bed, 200).await, first);
    point_at(bed, Colour::Green).await;
    assert_eq!(on_blue(bed, 200).await, first, "it is pointed where it points");
    split(bed, "60%").await;
    let more = on_blue(bed, 200).await;
    assert!(more.len() > first.len() && first.iter().all(|client| more.contains(client)));
    bed.route().split(None).await.unwrap();
    assert_eq!(on_blue(bed, 200).await, NOBODY);
}

pub async fn a_move_ends_the_canary(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    split(bed, "30%").await;
    point_at(bed, Colour::Blue).await;
    assert_eq!(on_blue(bed, 50).await.len(), 50);
    point_at(bed, Colour::Green).await;
    assert_eq!(on_blue(bed, 50).await, NOBODY);
}

pub async fn a_canary_waits_for_a_target(bed: &impl Bed) {
    let canary = split(bed, "30%").await;
    assert_eq!(bed.route().pointing_at(), None);
    point_at(bed, Colour::Green).await;
    let those: Vec<_> = clients(50).filter(|client| canary.takes(*client)).collect();
    assert_eq!(on_blue(bed, 50).await, those);
}

/// Says which colour answers a client from that address: services say it when they are asked with a `c`.
pub async fn ask_colour(client: IpAddr, service: SocketAddr) -> Colour {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client, 0)).unwrap();
    let mut client = socket.connect(service).await.unwrap();
    client.write_all(b"c").await.unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).await.unwrap();
    Colour::BOTH.into_iter().find(|colour| initial(*colour) == answer[0]).unwrap()
}

/// What a service of that colour answers then.
pub fn initial(colour: Colour) -> u8 {
    colour.to_string().as_bytes()[0]
}
pub async fn holds_who_comes_wherever_it_points(bed: &impl Bed) {
    point_at(bed, Colour::Green).await;
    let _open = bed.connect(true).await;
    bed.route().hold(Some(Duration::from_secs(60))).await.unwrap();
    let waiting = bed.connect(true);
    tokio::pin!(waiting);
    let soon = Duration::from_millis(100);
    assert!(timeout(soon, &mut waiting).await.is_err(), "it is held");
    point_at(bed, Colour::Blue).await;
    assert_eq!(bed.route().pointing_at(), Some(bed.target(Colour::Blue)));
    assert!(timeout(soon, &mut waiting).await.is_err(), "it is held still");
    open(bed, Colour::Green, 1).await;
    open(bed, Colour::Blue, 0).await;

    bed.route().hold(None).await.unwrap();
    let _came_through = waiting.await;
    let _after = bed.connect(true).await;
    open(bed, Colour::Blue, 2).await;
}
