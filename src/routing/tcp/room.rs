//! How many connections fit into the descriptors that the process has.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most descriptors that are left for everything but connections.
const RESERVE: u64 = 512;

/// How many descriptors the kernel's table of them has room for from the start, if the limit allows so many.
const TABLE: u64 = 16 * 1024;

/// The places of one plane. Clients that find none wait in the kernel's accept queue, where they cost
/// nothing; if they were accepted, the sockets towards the service would be what is missing.
#[derive(Debug)]
pub(super) struct Room {
    places: usize,
    taken: AtomicUsize,
}

impl Room {
    /// Raises the limit of descriptors as far as it goes, and shares it out.
    pub(super) fn new() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile);
        // If this is refused the old limit holds, and that is read back below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX));
        grow_table(TABLE.min(descriptors));
        let places = (descriptors - RESERVE.min(descriptors / 4)) / 2;
        Self::with_places(usize::try_from(places).unwrap_or(usize::MAX))
    }

    fn with_places(places: usize) -> Arc<Self> {
        Arc::new(Self { places, taken: AtomicUsize::new(0) })
    }

    /// Takes a place, if there is one.
    pub(super) fn sit(self: &Arc<Self>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        // Dropping the seat gives back what was taken too much.
        (self.taken.fetch_add(1, Relaxed) < self.places).then_some(seat)
    }
}

/// Makes the kernel's table of descriptors grow now. It doubles when it is full, and in a process with threads
/// each time means a wait of milliseconds for whoever needs the next descriptor (`expand_fdtable` in Linux'
/// `fs/file.c` waits for all processors to have seen the old table go): in the middle of a rush of clients.
fn grow_table(descriptors: u64) {
    let highest = i32::try_from(descriptors - 1).unwrap_or(i32::MAX);
    // Without it nothing is wrong, only slower.
    let _ = eventfd(0, EventfdFlags::CLOEXEC).and_then(|any| fcntl_dupfd_cloexec(any, highest));
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Seat(Arc<Room>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let room = Room::with_places(2);
        let (first, second) = (room.sit(), room.sit());
        assert!(first.is_some() && second.is_some());
        assert!(room.sit().is_none() && room.sit().is_none());
        drop(first);
        assert!(room.sit().is_some());
    }
}
