//! The fakes, so that the tests that use them may be believed.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dorc::model::colour::Colour;
use dorc::routing::{Route, Target};
use tempfile::TempDir;

use crate::route_cases::Bed;
use crate::stand_ins::{FakeClient, FakeRoute, FakeServices};

mod route {
    use super::{Bed, Colour, FakeClient, FakeRoute, IpAddr, Route, SocketAddr, Target};

    async fn bed() -> FakeRoute {
        FakeRoute::default()
    }

    impl Bed for FakeRoute {
        type Client = FakeClient;

        fn route(&self) -> &impl Route {
            self
        }

        fn target(&self, colour: Colour) -> Target {
            let address = SocketAddr::from(([127, 0, 0, 1], if colour == Colour::Green { 1 } else { 2 }));
            Target::new(colour, address)
        }

        async fn connect(&self, busy: bool) -> FakeClient {
            loop {
                match self.connect(busy) {
                    Some(client) => return client,
                    None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            }
        }

        async fn colour_for(&self, client: IpAddr) -> Colour {
            self.connect_from(client, false).unwrap().colour
        }

        async fn closed(&self, client: FakeClient) {
            assert!(!client.is_open());
        }
    }

    crate::route_contract!(bed);
}

mod services {
    use super::{FakeServices, Path, TempDir};

    struct FakeBed {
        services: FakeServices,
        root: TempDir,
    }

    impl FakeBed {
        fn services(&self) -> &FakeServices {
            &self.services
        }

        fn root(&self) -> &Path {
            self.root.path()
        }
    }

    async fn bed() -> Option<FakeBed> {
        Some(FakeBed { services: FakeServices::default(), root: tempfile::tempdir().unwrap() })
    }

    // What the engine's tests need of it. The other cases are about processes, which a fake has none of.
    crate::services_contract!(bed: fails_where_nothing_can_be_executed, stop_and_remove_of_nothing);
}
