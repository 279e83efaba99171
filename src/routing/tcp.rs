//! The tcp plane: accepts, connects, and moves bytes both ways.
//!
//! ```text
//! listen ─→ event_loop ─ accept ─→ connect ─ joined at once ──────────→ relay ─→ half × 2 ─→ pipe
//!               ↑                     └── held in a task of its own ──┐
//!               └───────────────────────── mailbox ←──────────────────┘
//! ```
//! From the accept to the close nothing waits for anything else: a client that has to wait for its service has
//! a task of its own, one that is joined with it is carried by the event loop of its thread, and what they
//! share (the register, the places) is locked for a few instructions only.

mod accept;
mod connect;
mod event_loop;
mod half;
mod listen;
mod mailbox;
mod pipe;
mod relay;
mod room;
mod threads;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use self::connect::{Pace, open_in_all};
use self::listen::Listener;
use self::mailbox::Mailbox;
use self::room::Room;
use self::threads::Threads;
use super::connections::Register;
use super::{Canary, Course, Route, Target, Which};
use crate::model::colour::{ByColour, Colour};

/// How often a route that finishes looks for connections that fell quiet.
const LOOK: Duration = Duration::from_millis(20);
/// How long a connection must be quiet then: the pieces of one answer come closer together than this.
const BETWEEN_PIECES: Duration = Duration::from_millis(100);

/// The data-plane threads, and what all routes share.
#[derive(Debug)]
pub struct Plane {
    threads: Threads,
    room: Arc<Room>,
    waiting: Handle,
}

impl Plane {
    /// Starts so many threads, at least one; dropping the plane ends them and what they carry. Raises the
    /// process's limit of descriptors as far as it goes. Within a runtime, which looks after those who wait.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub fn start(threads: usize) -> io::Result<Self> {
        // The table of descriptors grows without a wait as long as no thread shares it.
        let room = Room::new();
        Ok(Self { threads: Threads::start(threads.max(1))?, room, waiting: Handle::current() })
    }

    /// Opens the route of one app, which points nowhere yet. Adopted listeners take the place of binding where
    /// their address matches; the rest of them are closed.
    ///
    /// # Errors
    /// An address can't be listened on; the error names it and says why.
    pub fn open(
        &self,
        listen: &[SocketAddr],
        hold: Duration,
        adopted: Vec<TcpListener>,
    ) -> io::Result<TcpRoute> {
        let shared = Arc::new(Shared {
            register: Arc::new(Register::default()),
            room: Arc::clone(&self.room),
            hold: Mutex::new(hold),
            paused_until: Mutex::default(),
            held: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            paces: ByColour::default(),
            moves: watch::Sender::new(()),
            closing: watch::Sender::new(false),
            waiting: self.waiting.clone(),
            arrivals: Arc::default(),
        });
        let listeners = Mutex::new(Vec::new());
        let route = TcpRoute(Arc::new(Owner { shared, listeners, threads: self.threads.mailboxes() }));
        route.listen(listen, adopted)?;
        Ok(route)
    }
}

/// What the tasks of a route share.
#[derive(Debug)]
struct Shared {
    register: Arc<Register>,
    room: Arc<Room>,
    hold: Mutex<Duration>,
    paused_until: Mutex<Option<Instant>>,
    held: AtomicUsize,
    given_up: AtomicU64,
    paces: ByColour<tokio::sync::Mutex<Pace>>,
    /// Tells those who are held that the target was moved.
    moves: watch::Sender<()>,
    closing: watch::Sender<bool>,
    /// Runs the tasks of those who have to wait for a service.
    waiting: Handle,
    arrivals: Arc<Notify>,
}

/// The route of one app on the tcp plane. When the last clone is dropped its connections are closed.
#[derive(Debug, Clone)]
pub struct TcpRoute(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<Listener>>,
    threads: Vec<Arc<Mailbox>>,
}

impl Owner {
    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        // The list is exchanged as a whole, so it is sound even if a thread panicked while it held the lock.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close_everything();
    }
}

impl Shared {
    /// How long a client that comes now waits.
    fn patience(&self) -> Duration {
        let hold = *self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        hold + until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Lets go of those who are held, and closes all connections; says how many there were.
    fn close_everything(&self) -> usize {
        let held = self.held.load(Relaxed);
        self.closing.send_replace(true);
        // Whoever is being accepted in this moment finds no target, and then that the route is closing.
        self.register.point_at(None);
        Colour::BOTH.into_iter().map(|colour| self.register.close(colour, Which::All)).sum::<usize>() + held
    }
}

impl TcpRoute {
    /// How long clients that come from now on wait for a service that does not answer.
    pub fn set_hold(&self, hold: Duration) {
        *self.0.shared.hold.lock().unwrap_or_else(PoisonError::into_inner) = hold;
    }

    /// Makes these the listen addresses: what is new is bound first, only then what is no longer wanted is
    /// ended, whoever else has it open.
    ///
    /// # Errors
    /// As `Plane::open`; nothing was changed.
    pub fn listen(&self, addresses: &[SocketAddr], mut adopted: Vec<TcpListener>) -> io::Result<()> {
        let mut listeners = self.0.listeners();
        let wanted = listen::sockets_for(addresses);
        let mut new = Vec::new();
        for &address in &wanted {
            if !listeners.iter().any(|listener| listener.address == address) {
                new.push(listen::open(address, &mut adopted)?);
            }
        }
        for listener in &mut new {
            listener.accept(&self.0.shared, &self.0.threads);
        }
        let (kept, unwanted) = listeners.drain(..).partition(|listener| wanted.contains(&listener.address));
        *listeners = kept;
        listeners.extend(new);
        let unwanted: Vec<Listener> = unwanted;
        unwanted.into_iter().for_each(Listener::end);
        Ok(())
    }

    /// For how long clients wait for the end of a pause, beyond what they wait for a service.
    pub fn be_patient(&self, time: Option<Duration>) {
        let until = time.map(|time| Instant::now() + time);
        *self.0.shared.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Where clients go now.
    #[must_use]
    pub fn course(&self) -> Course {
        self.0.shared.register.course()
    }

    /// Sends clients that come from now on there.
    pub fn steer(&self, course: Course) {
        self.0.shared.register.steer(course);
        self.0.shared.moves.send_replace(());
    }

    /// The listening sockets, as duplicates for the descriptor store.
    #[must_use]
    pub fn listeners(&self) -> Vec<(SocketAddr, OwnedFd)> {
        let listeners = self.0.listeners();
        listeners
            .iter()
            .filter_map(|listener| Some((listener.address, listener.socket.try_clone().ok()?.into())))
            .collect()
    }

    /// The addresses that it really listens on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.listeners().iter().map(|listener| listener.address).collect()
    }

    /// Is notified of each client that is accepted; of those that come while nobody looks, once.
    #[must_use]
    pub fn arrivals(&self) -> Arc<Notify> {
        Arc::clone(&self.0.shared.arrivals)
    }

    /// How many connections that colour has got since the route was opened.
    #[must_use]
    pub fn accepted(&self, colour: Colour) -> u64 {
        self.0.shared.register.accepted(colour)
    }

    /// How many clients are waiting for the service.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.shared.held.load(Relaxed)
    }

    /// How many clients waited for longer than `hold`, and were closed, since the route was opened.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.0.shared.given_up.load(Relaxed)
    }

    /// Ends the route: its listening sockets, wherever else they are open, and all connections.
    /// A daemon that only wants to hand over uses `finish`.
    pub fn close_down(self) {
        self.0.listeners().drain(..).for_each(Listener::end);
        self.0.shared.close_everything();
    }

    /// The end before a successor takes over: accepts no more, but leaves the sockets open, so that clients
    /// queue up there; closes quiet connections, each as soon as it is quiet. Says how many connections were
    /// left at the deadline, and cut.
    pub async fn finish(&self, deadline: Duration) -> usize {
        let end = Instant::now() + deadline;
        let paused: Vec<_> = self.0.listeners().iter_mut().map(Listener::pause).collect();
        for mut all_left in paused {
            // A thread that has come to its end accepts nobody either.
            let _ = timeout_at(end, all_left.recv()).await;
        }
        let shared = &self.0.shared;
        while open_in_all(shared) + self.held() > 0 {
            if Instant::now() >= end {
                return shared.close_everything();
            }
            for colour in Colour::BOTH {
                shared.register.close(colour, Which::Quiet(BETWEEN_PIECES));
            }
            sleep(LOOK).await;
        }
        0
    }
}

impl Route for TcpRoute {
    async fn point_at(&self, target: Option<Target>) -> io::Result<()> {
        self.0.shared.register.point_at(target);
        self.0.shared.moves.send_replace(());
        Ok(())
    }

    async fn split(&self, canary: Option<Canary>) -> io::Result<()> {
        self.0.shared.register.split(canary);
        self.0.shared.moves.send_replace(());
        Ok(())
    }

    async fn hold(&self, time: Option<Duration>) -> io::Result<()> {
        self.be_patient(time);
        self.steer(self.course().hold(time.is_some()));
        Ok(())
    }

    fn pointing_at(&self) -> Option<Target> {
        self.course().target
    }

    async fn open_connections(&self, colour: Colour) -> usize {
        self.0.shared.register.open(colour)
    }

    async fn close(&self, colour: Colour, which: Which) -> usize {
        self.0.shared.register.close(colour, which)
    }
}
