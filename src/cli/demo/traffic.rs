//! The traffic of the demo, on a thread of its own, so that nothing else there can slow it down.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Client, Reopened};
use crate::control::api::demo::Requests;

/// What the clients do.
const KINDS: [(Kind, u32); 3] = [(Kind::Kept, 6), (Kind::OneShot, 6), (Kind::Slow, 2)];

/// How long all clients have for their first answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(10);

/// The pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(4);

/// How long a client that keeps its connection sends requests, as a browser does for a page, and then reads the page.
const BURST: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(1300));

/// How long a slow answer takes.
const SLOW: &str = "/slow?ms=500";

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Keeps its connection, and sends in bursts.
    Kept,
    /// Opens a connection for each request.
    OneShot,
    /// Asks for what takes long, so that something is always under way.
    Slow,
}

/// What the clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    GoOn,
    /// Finish the request that is under way.
    Finish,
    /// Leave it.
    Leave,
}

/// Clients that send requests until they are told to stop.
#[derive(Debug)]
pub(super) struct Traffic {
    told: watch::Sender<Told>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    /// The versions whose answers are right.
    versions: &'static [&'static str],
    requests: Mutex<Requests>,
    /// How many clients have had their first answer.
    warm: watch::Sender<u32>,
    /// Set when the last client has ended.
    over: watch::Sender<bool>,
}

impl Traffic {
    /// Starts the clients; an answer is right if it is one of these versions.
    pub(super) fn start(address: SocketAddr, versions: &'static [&'static str]) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (told, listens) = watch::channel(Told::GoOn);
        let requests = Mutex::default();
        let (warm, over) = (watch::Sender::new(0), watch::Sender::new(false));
        let shared = Arc::new(Shared { address, versions, requests, warm, over });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("traffic".into())
            .spawn(move || runtime.block_on(theirs.run(listens)))?;
        Ok(Self { told, shared, thread: Some(thread) })
    }

    /// How many clients there are.
    pub(super) fn clients() -> u32 {
        KINDS.iter().map(|(_, number)| number).sum()
    }

    /// What has become of the requests so far.
    pub(super) fn requests(&self) -> Requests {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each client has had an answer; false if that takes too long.
    pub(super) async fn is_under_way(&self) -> bool {
        let mut warm = self.shared.warm.subscribe();
        timeout(FIRST_ANSWERS, warm.wait_for(|warm| *warm == Self::clients())).await.is_ok()
    }

    /// Lets each client finish its request, and counts.
    pub(super) async fn finish(self) -> Requests {
        self.told.send_replace(Told::Finish);
        let mut over = self.shared.over.subscribe();
        // Its sender lives as long as `self`, and each request has its own limit.
        let _ = over.wait_for(|over| *over).await;
        self.requests()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.told.send_replace(Told::Leave);
        if let Some(thread) = self.thread.take() {
            // It leaves at once; a panic there was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>, mut told: watch::Receiver<Told>) {
        let mut clients = JoinSet::new();
        for (kind, number) in KINDS {
            for number in 0..number {
                clients.spawn(Arc::clone(&self).client(kind, number, told.clone()));
            }
        }
        tokio::select! {
            () = async { while clients.join_next().await.is_some() {} } => {}
            _ = told.wait_for(|told| *told == Told::Leave) => clients.shutdown().await,
        }
        self.over.send_replace(true);
    }

    async fn client(self: Arc<Self>, kind: Kind, number: u32, mut told: watch::Receiver<Told>) {
        let path = if kind == Kind::Slow { SLOW } else { "/" };
        let mut client = Client::new(self.address, path, kind == Kind::Kept);
        // Not all of them rest at the same time.
        let mut burst = Instant::now() + BURST.0 * number / 2;
        let mut is_warm = false;
        while *told.borrow() == Told::GoOn {
            let start = Instant::now();
            let (answer, reopened) = client.ask().await;
            self.count(kind, answer, reopened, start.elapsed());
            if !std::mem::replace(&mut is_warm, true) {
                self.warm.send_modify(|warm| *warm += 1);
            }
            let mut pause = PAUSE;
            if kind == Kind::Kept && Instant::now() >= burst {
                pause = BURST.1;
                burst = Instant::now() + BURST.1 + BURST.0;
            }
            tokio::select! {
                _ = told.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn count(&self, kind: Kind, answer: Result<String, String>, reopened: Reopened, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.sent += 1;
        requests.reopened += u64::from(reopened != Reopened::No);
        requests.resent += u64::from(reopened == Reopened::After);
        let answer = answer.and_then(|body| {
            let is_right = self.versions.contains(&body.as_str());
            if is_right { Ok(body) } else { Err(format!("a wrong answer: {body}")) }
        });
        match answer {
            Ok(version) => {
                *requests.answers.entry(version).or_default() += 1;
                if kind != Kind::Slow {
                    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    requests.slowest_ms = requests.slowest_ms.max(took);
                }
            }
            Err(why) => {
                requests.failed += 1;
                *requests.reasons.entry(why).or_default() += 1;
            }
        }
    }
}
