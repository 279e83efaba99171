//! Which plane an app has.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::control::api;
use crate::model::app::{App, AppName, PlaneChoice, ServiceId};
use crate::model::colour::{ByColour, Colour};
use crate::routing::kernel::{Kernel, KernelRoute};
use crate::routing::tcp::Plane;
use crate::services::Services;

/// What there is to choose from.
pub struct Planes {
    tcp: Plane,
    kernel: Arc<Kernel>,
}

impl Planes {
    /// The tcp plane, and the kernel plane that is pinned on a folder; `None`: there is none.
    pub(super) fn new(tcp: Plane, pins: Option<PathBuf>) -> Self {
        let kernel = match pins {
            Some(folder) => Kernel::new(folder),
            None => Kernel::none("dorc up has the tcp plane only".into()),
        };
        Self { tcp, kernel: Arc::new(kernel) }
    }

    /// The route of an app, by the tcp plane for now.
    pub(super) fn open<S: Services>(
        &self,
        app: &App,
        services: &Arc<S>,
        adopted: Vec<TcpListener>,
    ) -> io::Result<KernelRoute> {
        let tcp = self.tcp.open(&app.listen, app.switch.hold, adopted)?;
        let (services, name) = (Arc::clone(services), app.name.clone());
        let control_group = Arc::new(move |colour| {
            let (services, id) = (services.clone(), ServiceId { app: name.clone(), colour });
            let group = async move { services.control_group(&id).await };
            Box::pin(group) as Pin<Box<dyn Future<Output = Option<PathBuf>> + Send>>
        });
        Ok(KernelRoute::new(tcp, app.name.clone(), control_group))
    }

    /// Gives a route the plane that its app wants, as far as that is possible; else the reason.
    pub(super) async fn choose(&self, app: &App, route: &KernelRoute) -> Result<(), String> {
        match app.plane {
            PlaneChoice::Auto | PlaneChoice::Kernel => route.take_shortcut(&self.kernel).await,
            PlaneChoice::Tcp | PlaneChoice::Http => route
                .leave_shortcut(&self.kernel, "its app file says so")
                .map_err(|error| format!("the kernel plane goes on: {error}")),
        }
    }

    /// As `choose`; refuses an app that has to have the kernel plane and can't.
    pub(super) async fn insist(&self, app: &App, route: &KernelRoute) -> Result<(), String> {
        match self.choose(app, route).await {
            Err(reason) if app.plane == PlaneChoice::Kernel => Err(format!(
                "plane = \"kernel\" is not possible: {reason}; \"auto\" takes the tcp plane then"
            )),
            Err(reason) => {
                tracing::info!(app = %app.name, reason, "it has the tcp plane");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Ends what an earlier daemon steered to others than these apps.
    pub(super) fn clean_up(&self, apps: &[AppName]) {
        self.kernel.clean_up(apps);
    }

    /// Whether this host can have the kernel plane, or why not.
    pub(super) async fn try_kernel(&self) -> Result<(), String> {
        let kernel = Arc::clone(&self.kernel);
        let tried = tokio::task::spawn_blocking(move || kernel.try_out()).await;
        tried.map_err(|error| error.to_string()).flatten()
    }
}

/// The plane that a route has, and what passes there.
pub(super) async fn status(route: &KernelRoute, wanted: PlaneChoice) -> api::Plane {
    let obstacle = route.obstacle();
    let name = if obstacle.is_none() { "kernel" } else { "tcp" };
    let mut traffic = ByColour::default();
    for colour in Colour::BOTH {
        traffic[colour] = route.traffic(colour).await.map(|traffic| api::Traffic {
            accepted: traffic.accepted,
            closed: traffic.closed,
            received_bytes: traffic.received,
            sent_bytes: traffic.sent,
            round_trip_us: traffic.round_trip.map(|time| time.as_micros() as u64),
        });
    }
    api::Plane { name, reason: obstacle.filter(|_| wanted != PlaneChoice::Tcp), traffic }
}
