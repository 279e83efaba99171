//! The register of connections that pass through dorc: who chose which service, and what is going on there.
//!
//! Choosing a target and being counted is one step under one lock, and so is moving the target: once
//! `point_at` has returned, nothing new reaches the old colour and its count can only fall.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{Canary, Course, Target, Which};
use crate::model::colour::{ByColour, Colour};

/// The connections of one route, and where it points.
#[derive(Debug, Default)]
pub struct Register {
    inner: Mutex<Inner>,
    accepted: ByColour<AtomicU64>,
}

#[derive(Debug, Default)]
struct Inner {
    course: Course,
    open: ByColour<Vec<Arc<Entry>>>,
    spared: ByColour<usize>,
}

/// What the register knows of one connection.
#[derive(Debug)]
struct Entry {
    /// Its place in the list of its colour; changed only under the register's lock.
    index: AtomicUsize,
    /// The time of the last byte in milliseconds, twice; plus one while the client waits for an answer.
    last: AtomicU64,
    /// What it was told to do.
    order: AtomicU32,
    /// Who is to be woken for an order, once somebody looks after it.
    waker: OnceLock<Waker>,
}

/// No order was given.
const GO_ON: u32 = 0;
/// Close, whatever is going on. Orders below it are: close if quiet for that many milliseconds, plus one.
const CLOSE: u32 = u32::MAX;

/// What a connection was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Close if it is still quiet.
    CloseIfQuiet,
    /// Close at once.
    Close,
}

impl Register {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds the lock can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the target; connections that choose from now on get the new one.
    pub fn point_at(&self, target: Option<Target>) {
        let mut inner = self.lock();
        inner.course = inner.course.point_at(target);
    }

    /// Sends a share of the connections that choose from now on elsewhere.
    pub fn split(&self, canary: Option<Canary>) {
        let mut inner = self.lock();
        inner.course = inner.course.split(canary);
    }

    /// Both in one step.
    pub fn steer(&self, course: Course) {
        self.lock().course = course;
    }

    /// Where connections go now.
    #[must_use]
    pub fn course(&self) -> Course {
        self.lock().course
    }

    /// Chooses the target for one connection, which counts as the target's from here until the ticket is dropped.
    #[must_use]
    pub fn choose(self: &Arc<Self>, client: IpAddr) -> Option<(Target, Ticket)> {
        let mut inner = self.lock();
        let target = inner.course.of(client)?;
        let list = &mut inner.open[target.colour];
        let entry = Arc::new(Entry {
            index: AtomicUsize::new(list.len()),
            last: AtomicU64::new(now() * 2),
            order: AtomicU32::new(GO_ON),
            waker: OnceLock::new(),
        });
        list.push(Arc::clone(&entry));
        drop(inner);
        Some((target, Ticket { register: Arc::clone(self), entry, colour: target.colour }))
    }

    /// How many connections that colour has.
    #[must_use]
    pub fn open(&self, colour: Colour) -> usize {
        self.lock().open[colour].len()
    }

    /// How many connections that colour has got since the route was opened.
    #[must_use]
    pub fn accepted(&self, colour: Colour) -> u64 {
        self.accepted[colour].load(Relaxed)
    }

    /// Tells connections to close and says how many. One that gets a byte in that very moment is spared,
    /// and taken off the next answer, so that the answers add up to the number closed.
    pub fn close(&self, colour: Colour, which: Which) -> usize {
        let mut inner = self.lock();
        let order = match which {
            Which::All => CLOSE,
            Which::Quiet(least) => {
                u32::try_from(least.as_millis()).map_or(CLOSE - 1, |ms| (ms + 1).min(CLOSE - 1))
            }
        };
        let now = now();
        let told = inner.open[colour].iter().filter(|entry| entry.tell(order, now)).count();
        let spared = inner.spared[colour].min(told);
        inner.spared[colour] -= spared;
        told - spared
    }
}

impl Entry {
    /// Gives the order, if it applies; true if the entry had none before.
    fn tell(&self, order: u32, now: u64) -> bool {
        let before = self.order.load(Relaxed);
        if order <= before || (order != CLOSE && !self.quiet(order - 1, now)) {
            return false;
        }
        self.order.store(order, Release);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
        before == GO_ON
    }

    /// Whether nothing is unanswered and no byte has passed for so many milliseconds.
    fn quiet(&self, least: u32, now: u64) -> bool {
        let last = self.last.load(Relaxed);
        last & 1 == 0 && now.saturating_sub(last / 2) >= u64::from(least)
    }
}

/// One connection's place in the register: it is counted for as long as this lives.
#[derive(Debug)]
pub struct Ticket {
    register: Arc<Register>,
    entry: Arc<Entry>,
    colour: Colour,
}

impl Ticket {
    /// The service took the connection.
    pub fn connected(&self) {
        self.register.accepted[self.colour].fetch_add(1, Relaxed);
    }

    /// Says who is to be woken for an order that comes from now on; the first one stays.
    pub fn wake_on_order(&self, waker: &Waker) {
        // Orders are given under the same lock: none can fall between this and a look at `order`.
        let _inner = self.register.lock();
        let _ = self.entry.waker.set(waker.clone());
    }

    /// What this connection was told to do.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        match self.entry.order.load(Acquire) {
            GO_ON => None,
            CLOSE => Some(Order::Close),
            _ => Some(Order::CloseIfQuiet),
        }
    }

    /// Whether the order to close a quiet connection still holds: nothing was said since.
    #[must_use]
    pub fn still_quiet(&self) -> bool {
        self.entry.quiet(self.entry.order.load(Acquire).saturating_sub(1), now())
    }

    /// The order to close came too late, the connection goes on.
    pub fn spared(&self) {
        let mut inner = self.register.lock();
        if self.entry.order.load(Relaxed) != CLOSE {
            self.entry.order.store(GO_ON, Relaxed);
            inner.spared[self.colour] += 1;
        }
    }

    /// The client said something: the service owes it an answer.
    pub fn client_spoke(&self) {
        self.entry.last.store(now() * 2 + 1, Relaxed);
    }

    /// The service said something: nothing is unanswered.
    pub fn service_spoke(&self) {
        self.entry.last.store(now() * 2, Relaxed);
    }

    /// Whether the client waits for an answer.
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.entry.last.load(Relaxed) & 1 == 1
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.register.lock();
        let list = &mut inner.open[self.colour];
        let index = self.entry.index.load(Relaxed);
        list.swap_remove(index);
        if let Some(moved) = list.get(index) {
            moved.index.store(index, Relaxed);
        }
        // A burst must not leave its memory behind for ever.
        if list.capacity() > 1024 && list.len() < list.capacity() / 4 {
            list.shrink_to(list.capacity() / 2);
        }
    }
}

/// A coarse monotonic clock: read for every chunk of every connection, so it must cost next to nothing.
fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    seconds.as_secs() * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pointing_at_blue() -> Arc<Register> {
        let register = Arc::new(Register::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        register.point_at(Some(Target::new(Colour::Blue, address)));
        register
    }

    fn ticket(register: &Arc<Register>) -> Ticket {
        register.choose(CLIENT).expect("it points at blue").1
    }

    #[test]
    fn counts_from_choice_to_drop_in_any_order() {
        let register = pointing_at_blue();
        let mut tickets: Vec<_> = (0..5).map(|_| ticket(&register)).collect();
        for left in (0..5).rev() {
            tickets.swap_remove(left / 2);
            assert_eq!(register.open(Colour::Blue), left);
        }
        assert_eq!(register.open(Colour::Green), 0);
        register.point_at(None);
        assert!(register.choose(CLIENT).is_none());
    }

    #[test]
    fn closes_only_quiet_ones_and_each_once() {
        let register = pointing_at_blue();
        let (quiet, waiting) = (ticket(&register), ticket(&register));
        waiting.client_spoke();
        assert_eq!(register.close(Colour::Blue, Which::Quiet(Duration::from_secs(60))), 0);
        assert_eq!(register.close(Colour::Blue, Which::Quiet(Duration::ZERO)), 1);
        assert_eq!(register.close(Colour::Blue, Which::Quiet(Duration::ZERO)), 0);
        assert_eq!((quiet.order(), waiting.order()), (Some(Order::CloseIfQuiet), None));
        assert_eq!(register.close(Colour::Blue, Which::All), 1);
        assert_eq!((quiet.order(), waiting.order()), (Some(Order::Close), Some(Order::Close)));
    }

    #[test]
    fn one_that_was_spared_is_taken_off_the_next_answer() {
        let register = pointing_at_blue();
        let one = ticket(&register);
        assert_eq!(register.close(Colour::Blue, Which::Quiet(Duration::ZERO)), 1);
        one.client_spoke();
        assert!(!one.still_quiet());
        one.spared();
        assert_eq!(one.order(), None);
        assert_eq!(register.close(Colour::Blue, Which::All), 0);
    }
}
