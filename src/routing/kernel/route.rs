//! The route of one app: a route of the tcp plane with a shortcut through the kernel.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::Kernel;
use super::connections::{close, connections, handshakes};
use super::listeners::{self, NotFound};
use super::sock_diag::Connection;
use super::steering::Steering;
use crate::model::app::AppName;
use crate::model::colour::{ByColour, Colour};
use crate::routing::tcp::TcpRoute;
use crate::routing::{Canary, Course, Route, Target, Which};

/// The pauses between two looks for the socket of a service that clients wait for.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long the supervisor may take to say where a service is.
const PATIENCE: Duration = Duration::from_secs(2);
/// A handshake that takes longer than this comes to nothing: at least one packet was repeated.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Tells the folder of the control group of the service of a colour, if it runs.
pub type ControlGroup =
    Arc<dyn Fn(Colour) -> Pin<Box<dyn Future<Output = Option<PathBuf>> + Send>> + Send + Sync>;

/// What passed by dorc to the service of a colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that it got; one whose first packet was repeated counts twice.
    pub accepted: u64,
    /// Connections that dorc closed since it was started.
    pub closed: u64,
    /// What the connections that are open have received and sent, in bytes.
    pub received: u64,
    /// See `received`.
    pub sent: u64,
    /// The mean round-trip time of the connections that are open.
    pub round_trip: Option<Duration>,
}

/// The route of one app on the kernel plane or, where that is not possible, on the tcp plane.
#[derive(Clone)]
pub struct KernelRoute(Arc<Inner>);

struct Inner {
    tcp: TcpRoute,
    name: AppName,
    control_group: ControlGroup,
    shortcut: Mutex<Result<Shortcut, String>>,
    /// It had the shortcut once: connections may be left of that.
    used: AtomicBool,
    /// Held by whoever looks for sockets or moves the route.
    turn: tokio::sync::Mutex<()>,
    closed: ByColour<AtomicU64>,
    /// Where the services' control groups were seen last.
    groups: Mutex<ByColour<Option<PathBuf>>>,
    begun: Mutex<Option<Begun>>,
    seeker: Mutex<Option<AbortHandle>>,
}

/// Handshakes that a colour had when the route was moved away from it.
struct Begun {
    colour: Colour,
    until: Instant,
    handshakes: Vec<(SocketAddr, SocketAddr)>,
}

/// An app's place in the steering.
#[derive(Clone)]
struct Shortcut {
    kernel: Arc<Kernel>,
    steering: Arc<Steering>,
    number: u32,
    /// Why connections to a colour take the tcp plane all the same.
    obstacles: ByColour<Option<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(seeker) = lock(&self.seeker).take() {
            seeker.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is exchanged as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KernelRoute {
    /// A route over one of the tcp plane, without a shortcut yet.
    #[must_use]
    pub fn new(tcp: TcpRoute, name: AppName, control_group: ControlGroup) -> Self {
        Self(Arc::new(Inner {
            tcp,
            name,
            control_group,
            shortcut: Mutex::new(Err("it is not set up yet".into())),
            used: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            closed: ByColour::default(),
            groups: Mutex::default(),
            begun: Mutex::default(),
            seeker: Mutex::default(),
        }))
    }

    /// The route of the tcp plane below.
    #[must_use]
    pub fn tcp(&self) -> &TcpRoute {
        &self.0.tcp
    }

    /// Takes the shortcut: where an earlier daemon left one, the route points where that one did.
    ///
    /// # Errors
    /// It can't; the route goes on by the tcp plane, and knows the reason.
    pub async fn take_shortcut(&self, kernel: &Arc<Kernel>) -> Result<(), String> {
        let taken = self.try_shortcut(kernel).await;
        if let Err(reason) = &taken
            && let Err(error) = self.leave_shortcut(kernel, reason)
        {
            tracing::error!(app = %self.0.name, %error, "what was begun for it in the kernel stays there");
            *lock(&self.0.shortcut) = Err(reason.clone());
        }
        taken
    }

    async fn try_shortcut(&self, kernel: &Arc<Kernel>) -> Result<(), String> {
        if self.shortcut().is_some() {
            return Ok(());
        }
        let steering = kernel.open()?;
        let say = |error: io::Error| format!("the kernel plane: {error}");
        let number = steering.number(&self.0.name).map_err(say)?;
        let adopted = steering.course(number).map_err(say)?;
        let before = self.0.tcp.course();
        let shortcut =
            Shortcut { kernel: Arc::clone(kernel), steering, number, obstacles: ByColour::default() };
        *lock(&self.0.shortcut) = Ok(shortcut.clone());
        self.0.used.store(true, Relaxed);
        if before.target.is_some() {
            self.steer(|course| course).await.map_err(say)?;
        } else if adopted.target.is_some() {
            self.0.tcp.steer(adopted);
        }
        shortcut.steering.route(number, &self.0.tcp.addresses()).map_err(say)?;
        *lock(&self.0.seeker) = Some(tokio::spawn(seek(Arc::downgrade(&self.0))).abort_handle());
        Ok(())
    }

    /// Leaves the shortcut, for that reason: connections that come from now on take the tcp plane.
    ///
    /// # Errors
    /// The kernel goes on as before.
    pub fn leave_shortcut(&self, kernel: &Kernel, reason: &str) -> io::Result<()> {
        kernel.forget(&self.0.name)?;
        *lock(&self.0.shortcut) = Err(reason.to_owned());
        if let Some(seeker) = lock(&self.0.seeker).take() {
            seeker.abort();
        }
        Ok(())
    }

    fn shortcut(&self) -> Option<Shortcut> {
        lock(&self.0.shortcut).as_ref().ok().cloned()
    }

    /// Whether it has the shortcut.
    #[must_use]
    pub fn has_shortcut(&self) -> bool {
        self.shortcut().is_some()
    }

    /// Why connections do not go straight to the service; `None`: they do.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        match &*lock(&self.0.shortcut) {
            Ok(_) if self.0.tcp.course().has_headers() => {
                Some("the service is told of its clients by the PROXY protocol".into())
            }
            Ok(shortcut) => shortcut.obstacles[self.0.tcp.pointing_at()?.colour].clone(),
            Err(reason) => Some(reason.clone()),
        }
    }

    /// As `TcpRoute::listen`.
    ///
    /// # Errors
    /// As there; or the kernel does not take the addresses.
    pub fn listen(&self, addresses: &[SocketAddr]) -> io::Result<()> {
        self.0.tcp.listen(addresses, Vec::new())?;
        match self.shortcut() {
            Some(shortcut) => shortcut.steering.route(shortcut.number, &self.0.tcp.addresses()),
            None => Ok(()),
        }
    }

    /// Ends the route, here and in the kernel.
    pub fn close_down(self) {
        if let Some(shortcut) = self.shortcut()
            && let Err(error) = self.leave_shortcut(&shortcut.kernel, "the route was ended")
        {
            tracing::error!(app = %self.0.name, %error, "the kernel goes on steering to the app");
        }
        self.0.tcp.clone().close_down();
    }

    /// What passed by to the service of that colour; `None` without a shortcut.
    pub async fn traffic(&self, colour: Colour) -> Option<Traffic> {
        let shortcut = self.shortcut()?;
        let open = self.straight(colour).await;
        let info = || open.iter().filter_map(|connection| connection.info.as_ref());
        let round_trips: Duration = info().map(|info| info.rtt).sum();
        let count = u32::try_from(info().count()).unwrap_or(u32::MAX);
        let steered = shortcut.steering.steered(shortcut.number, colour).unwrap_or_default();
        Some(Traffic {
            accepted: steered + self.0.tcp.accepted(colour),
            closed: self.0.closed[colour].load(Relaxed),
            received: info().map(|info| info.bytes_received).sum(),
            sent: info().map(|info| info.bytes_sent).sum(),
            round_trip: round_trips.checked_div(count),
        })
    }

    /// The control group of a service. It stays where it is from one start to the next, so who is asked first is the kernel.
    async fn group(&self, colour: Colour) -> Option<PathBuf> {
        let known = lock(&self.0.groups)[colour].clone();
        if let Some(known) = known.filter(|folder| folder.exists()) {
            return Some(known);
        }
        let asked = timeout(PATIENCE, (self.0.control_group)(colour)).await.ok().flatten();
        lock(&self.0.groups)[colour].clone_from(&asked);
        asked
    }

    /// The connections that go straight to the service of that colour.
    async fn straight(&self, colour: Colour) -> Vec<Connection> {
        if !self.0.used.load(Relaxed) {
            return Vec::new();
        }
        let Some(group) = self.group(colour).await else { return Vec::new() };
        let addresses = self.0.tcp.addresses();
        let found = off_the_runtime(move || connections(&group, &addresses)).await;
        found.unwrap_or_else(|error| {
            tracing::error!(app = %self.0.name, %colour, %error, "its connections could not be counted");
            Vec::new()
        })
    }

    /// How many handshakes that began before the last move are still under way to that colour.
    async fn begun(&self, colour: Colour) -> usize {
        let is_current = |begun: &&mut Begun| begun.colour == colour && begun.until > Instant::now();
        if lock(&self.0.begun).as_mut().filter(is_current).is_none_or(|begun| begun.handshakes.is_empty()) {
            return 0;
        }
        let addresses = self.0.tcp.addresses();
        let now = off_the_runtime(move || handshakes(&addresses)).await.unwrap_or_default();
        lock(&self.0.begun).as_mut().filter(is_current).map_or(0, |begun| {
            begun.handshakes.retain(|one| now.contains(one));
            begun.handshakes.len()
        })
    }

    /// Gives the kernel the sockets of a service.
    async fn seat(&self, shortcut: &Shortcut, target: Target) -> Result<(), NotFound> {
        let group = self.group(target.colour).await;
        let (steering, number) = (Arc::clone(&shortcut.steering), shortcut.number);
        let seated = off_the_runtime(move || {
            let port = target.address.port();
            let found = match group {
                Some(group) => listeners::find(&group, port),
                None => Err(NotFound::NotListening(port)),
            };
            Ok(match found {
                Ok(sockets) => {
                    // They are closed at the end of this: whoever has one open keeps clients waiting if the service dies.
                    steering
                        .seat(number, target.colour, sockets.each_ref().map(Option::as_ref))
                        .map_err(NotFound::Error)
                }
                // What there was goes on: a socket that is closed leaves the map by itself.
                Err(error) => Err(error),
            })
        });
        let seated = seated.await.map_err(NotFound::Error).flatten();
        let obstacle = match &seated {
            // It listens no more, or not yet: clients are held, which is no other plane.
            Ok(()) | Err(NotFound::NotListening(_)) => None,
            // The kernel has it from an earlier daemon.
            Err(_) if shortcut.steering.has_socket(shortcut.number, target.colour) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Ok(shortcut) = &mut *lock(&self.0.shortcut) {
            let before = &mut shortcut.obstacles[target.colour];
            if let Some(obstacle) = &obstacle
                && before.as_ref() != Some(obstacle)
            {
                tracing::warn!(app = %self.0.name, colour = %target.colour, obstacle, "connections take the tcp plane");
            }
            *before = obstacle;
        }
        seated
    }

    /// Looks for the sockets of those who get clients; true if each of them has some.
    async fn look(&self) -> bool {
        let _turn = self.0.turn.lock().await;
        let course = self.0.tcp.course();
        let is_straight = course.target.is_some() && !course.has_headers();
        let Some(shortcut) = self.shortcut().filter(|_| is_straight) else { return false };
        let mut all = true;
        for target in course.targets() {
            all &= self.seat(&shortcut, target).await.is_ok();
        }
        all
    }

    /// Changes where clients go: on both planes, and in the kernel in one update. Whoever gets some has its sockets there
    /// before.
    async fn steer(&self, change: impl FnOnce(Course) -> Course + Send) -> io::Result<()> {
        let _turn = self.0.turn.lock().await;
        let before = self.0.tcp.course();
        let course = change(before);
        let Some(shortcut) = self.shortcut() else {
            self.0.tcp.steer(course);
            return Ok(());
        };
        for target in course.targets().filter(|_| !course.has_headers()) {
            if let Err(reason) = self.seat(&shortcut, target).await {
                tracing::debug!(app = %self.0.name, %reason, "connections fall through for now");
            }
        }
        // Nothing waits between these two: whoever gives up in the middle has done both or none.
        self.0.tcp.steer(course);
        if let Err(error) = shortcut.steering.steer(shortcut.number, &self.0.name, course) {
            self.0.tcp.steer(before);
            return Err(error);
        }
        let gets = |colour| course.targets().any(|target| target.colour == colour);
        if let Some(left) = before.targets().find(|target| !gets(target.colour)) {
            let addresses = self.0.tcp.addresses();
            let handshakes = off_the_runtime(move || handshakes(&addresses)).await.unwrap_or_default();
            let until = Instant::now() + HANDSHAKE;
            *lock(&self.0.begun) = Some(Begun { colour: left.colour, until, handshakes });
        }
        Ok(())
    }
}

/// Looks for the services' sockets whenever a client came to dorc's own.
async fn seek(route: Weak<Inner>) {
    let Some(arrivals) = route.upgrade().map(|route| route.tcp.arrivals()) else { return };
    loop {
        arrivals.notified().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(route) = route.upgrade().map(KernelRoute) else { return };
            let waiting = route.0.tcp.held() > 0 && route.pointing_at().is_some();
            if route.look().await || !waiting {
                break;
            }
            drop(route);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // Some clients come here whatever is found, as by IPv6 to a service that has only IPv4.
        sleep(LONGEST_PAUSE).await;
    }
}

impl Route for KernelRoute {
    async fn point_at(&self, target: Option<Target>) -> io::Result<()> {
        self.steer(|course| course.point_at(target)).await
    }

    async fn split(&self, canary: Option<Canary>) -> io::Result<()> {
        if canary.is_none() && self.0.tcp.course().canary.is_none() {
            // Each drain makes sure of that.
            return Ok(());
        }
        self.steer(|course| course.split(canary)).await
    }

    async fn hold(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.tcp.be_patient(time);
        self.steer(|course| course.hold(time.is_some())).await
    }

    fn pointing_at(&self) -> Option<Target> {
        self.0.tcp.pointing_at()
    }

    async fn open_connections(&self, colour: Colour) -> usize {
        let straight = self.straight(colour).await.len() + self.begun(colour).await;
        straight + self.0.tcp.open_connections(colour).await
    }

    async fn close(&self, colour: Colour, which: Which) -> usize {
        let unwanted = self.straight(colour).await;
        let straight = off_the_runtime(move || close(&unwanted, which)).await.unwrap_or_else(|error| {
            tracing::error!(app = %self.0.name, %colour, %error, "connections could not be closed");
            0
        });
        let closed = straight + self.0.tcp.close(colour, which).await;
        self.0.closed[colour].fetch_add(closed as u64, Relaxed);
        closed
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
