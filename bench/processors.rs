//! Who runs where: the client has one half of the processors, as if it were another machine, and the server the
//! other half, with the backend and whatever is in the path. Left to the scheduler, three busy programs on two
//! processors meet in ever new ways, and the values of one and the same program spread by a quarter.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two machines that are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It asks.
    Client,
    /// It answers.
    Server,
}

/// The processors that this run may use.
#[derive(Debug, Clone)]
pub struct Processors(Vec<usize>);

impl Processors {
    /// Those of the machine that this thread may run on.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn all() -> rustix::io::Result<Self> {
        let set = sched_getaffinity(None)?;
        Ok(Self((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()))
    }

    /// From now on this thread, and what it starts, is that one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn be(&self, side: Side) -> rustix::io::Result<()> {
        let mut set = CpuSet::new();
        self.of(side).iter().for_each(|&cpu| set.set(cpu));
        sched_setaffinity(None, &set)
    }

    /// One alone is for both.
    fn of(&self, side: Side) -> &[usize] {
        let (client, server) = self.0.split_at(self.0.len() / 2);
        if client.is_empty() || side == Side::Server { server } else { client }
    }
}
