//! The threads of the plane: each has an event loop of its own, and a connection never leaves its thread.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::event_loop::EventLoop;
use super::mailbox::{Letter, Mailbox};

/// All of them.
#[derive(Debug)]
pub(super) struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    mailbox: Arc<Mailbox>,
    running: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(Thread::start).collect::<io::Result<_>>().map(Self)
    }

    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.0.iter().map(|thread| Arc::clone(&thread.mailbox)).collect()
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Self> {
        let mailbox = Mailbox::new()?;
        let event_loop = EventLoop::new(Arc::clone(&mailbox))?;
        let running =
            std::thread::Builder::new().name(format!("tcp-{number}")).spawn(move || event_loop.run())?;
        Ok(Self { mailbox, running: Some(running) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.mailbox.send(Letter::End);
        if let Some(running) = self.running.take()
            && running.join().is_err()
        {
            tracing::error!("a thread of the tcp plane panicked");
        }
    }
}
