//! The event loop of one thread: looks which sockets are ready, reads what all of them have, then writes it all.
//!
//! Reading first means that those who are written to wake up once for a batch of work, and not for each
//! request. There is no task, no timer and no waker for each connection: who has to wait for a service is
//! looked after elsewhere.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;

use super::accept::{Accepted, Accepting};
use super::connect::serve;
use super::half::SCRATCH;
use super::mailbox::{Letter, Mailbox};
use super::relay::{Relay, Side};

/// How many sockets are looked after in one turn; the others are next.
const TURN: usize = 256;
/// How many clients of a listener are accepted before the connections that exist get their turn.
const BATCH: usize = 16;
/// Readiness is told once and kept with the socket until it is used up.
const CONNECTION: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET);
/// Of several threads that wait for clients one is woken.
const LISTENER: EventFlags = EventFlags::IN.union(EventFlags::EXCLUSIVE);
/// The longest wait before accepting is tried again when there was no room: others in the process use
/// descriptors too.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections and listening sockets of one thread.
#[derive(Debug)]
pub(super) struct EventLoop {
    epoll: OwnedFd,
    mailbox: Arc<Mailbox>,
    waker: Waker,
    relays: Slab<Box<Relay>>,
    listeners: Slab<Accepting>,
    /// Connections that were told of something, or were not done when their turn was over.
    due: Vec<usize>,
    /// Listeners that have clients.
    calling: Vec<usize>,
    /// When those that found no room are tried again.
    paused_until: Option<Instant>,
    memory: Box<[u8]>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
enum Token {
    Relay(usize, Side),
    Listener(usize),
    Mailbox,
}

impl EventLoop {
    /// One without connections, that reads this mailbox.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(mailbox: Arc<Mailbox>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*mailbox, Token::Mailbox.into(), EventFlags::IN)?;
        Ok(Self {
            epoll,
            waker: Waker::from(Arc::clone(&mailbox)),
            mailbox,
            relays: Slab::new(),
            listeners: Slab::new(),
            due: Vec::new(),
            calling: Vec::new(),
            paused_until: None,
            memory: vec![0; SCRATCH].into_boxed_slice(),
        })
    }

    /// Runs until a letter says that it is to end.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(TURN);
        loop {
            let letters = self.look(&mut events);
            self.move_bytes();
            self.accept();
            if letters && !self.open_letters() {
                return;
            }
            self.try_again();
        }
    }

    /// Waits until there is something to do, and notes what; true if the mailbox has rung.
    fn look(&mut self, events: &mut Vec<Event>) -> bool {
        self.wait(events);
        let mut letters = false;
        for event in &*events {
            match Token::from(event.data) {
                Token::Relay(key, side) => {
                    // It may have ended, and its place may be another's: an event too many does no harm.
                    if let Some(relay) = self.relays.get_mut(key) {
                        relay.note(side, event.flags);
                        if !std::mem::replace(&mut relay.due, true) {
                            self.due.push(key);
                        }
                    }
                }
                Token::Listener(key) => self.calling.push(key),
                Token::Mailbox => letters = true,
            }
        }
        letters
    }

    /// Waits for events.
    fn wait(&self, events: &mut Vec<Event>) {
        events.clear();
        let patience = if self.due.is_empty() {
            self.paused_until.map(|until| until.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        // Nothing but a signal can be in the way, and then the next turn looks again.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), patience.as_ref());
    }

    /// Reads what all have, then writes it all.
    fn move_bytes(&mut self) {
        let Self { relays, due, memory, paused_until, .. } = self;
        let before = relays.len();
        for &key in &*due {
            if relays.get_mut(key).is_some_and(|relay| relay.read(memory).is_err()) {
                relays.remove(key).reset();
            }
        }
        due.retain(|&key| {
            let Some(relay) = relays.get_mut(key) else { return false };
            relay.write();
            if relay.over() {
                relays.remove(key);
                return false;
            }
            relay.due = relay.can_go_on();
            relay.due
        });
        if relays.len() < before && paused_until.is_some() {
            *paused_until = Some(Instant::now());
        }
    }

    /// Takes in those who came, some from each listener: those who are there already get their turn in between.
    fn accept(&mut self) {
        for key in std::mem::take(&mut self.calling) {
            for _ in 0..BATCH {
                let Some(listener) = self.listeners.get_mut(key) else { break };
                match listener.accept() {
                    Accepted::One(client) => {
                        listener.route.arrivals.notify_one();
                        if let Some(relay) = serve(&listener.route, client, &self.mailbox) {
                            self.carry(relay);
                        }
                    }
                    Accepted::GaveUp => {}
                    Accepted::Nobody => break,
                    Accepted::NoRoom => {
                        listener.paused = true;
                        unwatch(&self.epoll, &listener.socket);
                        self.paused_until = Some(Instant::now() + PAUSE);
                        break;
                    }
                    Accepted::Ended => self.leave(key),
                }
            }
        }
    }

    fn carry(&mut self, relay: Box<Relay>) {
        relay.wake_on_order(&self.waker);
        if relay.has_order() {
            self.waker.wake_by_ref();
        }
        let entry = self.relays.vacant_entry();
        for side in Side::BOTH {
            let token = Token::Relay(entry.key(), side);
            if let Err(error) = epoll::add(&self.epoll, relay.socket(side), token.into(), CONNECTION) {
                tracing::warn!("a connection could not be watched, and was closed: {error}");
                return;
            }
        }
        entry.insert(relay);
    }

    fn watch(&mut self, key: usize) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        listener.paused = false;
        if let Err(error) = epoll::add(&self.epoll, &listener.socket, Token::Listener(key).into(), LISTENER) {
            tracing::error!("a listening socket could not be watched, it takes no connections: {error}");
            self.listeners.remove(key);
        }
    }

    fn leave(&mut self, key: usize) {
        // Other owners may go on with the socket, so that closing it would not end the watch.
        unwatch(&self.epoll, &self.listeners.remove(key).socket);
    }

    /// Does what others told; false if this is the end.
    fn open_letters(&mut self) -> bool {
        for letter in self.mailbox.take() {
            match letter {
                Letter::Accept(socket, route) => {
                    let key = self.listeners.insert(Accepting::new(socket, route));
                    self.watch(key);
                }
                Letter::Leave(socket, _left) => {
                    let found = self.listeners.iter().find(|(_, one)| Arc::ptr_eq(&one.socket, &socket));
                    if let Some(key) = found.map(|(key, _)| key) {
                        self.leave(key);
                    }
                }
                Letter::Carry(relay) => self.carry(relay),
                Letter::End => return false,
            }
        }
        if self.mailbox.take_orders() {
            self.relays.retain(|_, relay| !relay.obeys_by_ending());
        }
        true
    }

    /// Watches those listeners again that found no room, when it is time.
    fn try_again(&mut self) {
        if self.paused_until.take_if(|until| *until <= Instant::now()).is_some() {
            let paused = self.listeners.iter().filter(|(_, listener)| listener.paused);
            for key in paused.map(|(key, _)| key).collect::<Vec<_>>() {
                self.watch(key);
            }
        }
    }
}

fn unwatch(epoll: &OwnedFd, socket: &TcpListener) {
    // A paused one is not watched.
    let _ = epoll::delete(epoll, socket);
}

impl From<Token> for EventData {
    fn from(token: Token) -> Self {
        let (key, kind) = match token {
            Token::Relay(key, Side::Client) => (key, 0),
            Token::Relay(key, Side::Service) => (key, 1),
            Token::Listener(key) => (key, 2),
            Token::Mailbox => (0, 3),
        };
        Self::new_u64((key as u64) << 2 | kind)
    }
}

impl From<EventData> for Token {
    fn from(data: EventData) -> Self {
        // It was made from an index of this process.
        let key = (data.u64() >> 2) as usize;
        match data.u64() & 3 {
            0 => Self::Relay(key, Side::Client),
            1 => Self::Relay(key, Side::Service),
            2 => Self::Listener(key),
            _ => Self::Mailbox,
        }
    }
}
