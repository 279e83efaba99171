//! The threads of the plane: each has an event loop of its own, and a connection never leaves its thread.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How many tasks run before the sockets are looked at again, if there are so many: each look is a system call, and
/// with many busy connections there is always a next task.
const TURN: u32 = 200;

/// All of them.
#[derive(Debug)]
pub(super) struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    handle: Handle,
    /// Dropped, it ends the event loop.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(start_one).collect::<io::Result<_>>().map(Self)
    }

    pub(super) fn handles(&self) -> Vec<Handle> {
        self.0.iter().map(|thread| thread.handle.clone()).collect()
    }
}

fn start_one(number: usize) -> io::Result<Thread> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().event_interval(TURN).build()?;
    let handle = runtime.handle().clone();
    let (running, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name(format!("tcp-{number}")).spawn(move || {
        // The only message is that the sender is gone.
        let _ = runtime.block_on(ended);
    })?;
    Ok(Thread { handle, running: Some(running), thread: Some(thread) })
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.running.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the tcp plane panicked");
        }
    }
}
