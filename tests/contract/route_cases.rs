//! What every plane has to do, as cases over the seam: the fake one and the real ones run the same.

use std::time::Duration;

use dorc::model::colour::Colour;
use dorc::routing::{Route, Target, Which};

use crate::services_cases::eventually;

/// A route and the world around it: two services that never answer, and clients.
pub trait Bed {
    type Client;

    fn route(&self) -> &impl Route;

    /// The target of the service of that colour.
    fn target(&self, colour: Colour) -> Target;

    /// A client that has got through to the service, which owes it an answer if it is `busy`.
    fn connect(&self, busy: bool) -> impl Future<Output = Self::Client>;

    /// Waits until the client's connection is closed.
    fn closed(&self, client: Self::Client) -> impl Future<Output = ()>;
}

/// Makes a test of each case.
#[macro_export]
macro_rules! route_contract {
    ($bed:path) => {
        $crate::route_contract!($bed:
            points_nowhere_at_first, says_where_it_points, a_connection_stays_with_its_colour,
            closes_all_of_one_colour, closes_what_is_quiet_only, who_left_is_not_counted
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
