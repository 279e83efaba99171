//! What steers for all apps of a daemon: the program on the hook of its network namespace and the maps that it looks into.
//!
//! All of it is pinned in a bpffs of dorc's own, so it goes on without the daemon; the next one takes it over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bpf::{self, Kind, LoadError, Map};
use super::program::{self, AF_INET, AF_INET6, APP_THRESHOLD, COUNTS, LAYOUT, ROUTE_KEY, SOCKETS_PER_APP};
use crate::model::app::{AppName, MAX_NAME};
use crate::model::colour::Colour;
use crate::routing::course;
use crate::routing::{Canary, Course, Target};

/// How many apps there may be.
const APPS: u32 = 4096;
/// How many listen addresses they may have together.
const ROUTES: u32 = 16 * 1024;
/// `{ active: u32, port: u32, name: [u8; 48], threshold: u32, canary_port: u32 }`; active: 0 none, 1 blue, 2 green; the ports
/// are the services' own. The canary has the other colour; threshold 0, as it was before there were any: there is none.
const APP: usize = 64;
const APP_NAME: Range<usize> = 8..APP_THRESHOLD;
/// The name of the program.
const PROGRAM: &str = "dorc";

/// The program, its maps and its place on the hook.
#[derive(Debug)]
pub(super) struct Steering {
    routes: Map<ROUTE_KEY, 4>,
    apps: Map<4, APP>,
    sockets: Map<4, 8>,
    counts: Map<4, COUNTS>,
    _link: OwnedFd,
    book: Mutex<Book>,
}

/// What the maps have, so that nobody has to search them.
#[derive(Debug, Default)]
struct Book {
    numbers: BTreeMap<String, u32>,
    routes: BTreeMap<[u8; ROUTE_KEY], u32>,
}

/// Why there is no steering.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    /// The host can't; a sentence.
    #[error("{0}")]
    Host(String),
    /// What is pinned is of no use to this version.
    #[error("what is pinned in {0} is of another version of dorc: {1}")]
    Stale(PathBuf, String),
}

fn host(what: &str) -> impl Fn(io::Error) -> Unavailable {
    move |error| {
        let reason = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "not permitted; it needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN".to_owned()
            }
            Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::ENODEV) => {
                format!("this kernel can't ({error}); it needs Linux 5.9 or newer, with BPF")
            }
            _ => error.to_string(),
        };
        Unavailable::Host(format!("{what}: {reason}"))
    }
}

impl Steering {
    /// Takes over what is pinned below `folder`, or sets all up anew.
    pub(super) fn open(folder: &Path) -> Result<Self, Unavailable> {
        mount(folder).map_err(host(&format!("no bpffs could be mounted on {}", folder.display())))?;
        let pins = folder.join("steering");
        if pins.exists() { Self::adopt(&pins) } else { Self::set_up(&pins) }
    }

    /// Whether something is pinned below `folder`.
    pub(super) fn is_pinned(folder: &Path) -> bool {
        folder.join("steering").exists()
    }

    /// Whether it could be set up; nothing is left of the trial.
    pub(super) fn try_out() -> Result<(), Unavailable> {
        let maps = Maps::create().map_err(host("the maps of the kernel plane"))?;
        maps.load()?;
        attached_by_others()
    }

    fn set_up(pins: &Path) -> Result<Self, Unavailable> {
        attached_by_others()?;
        let maps = Maps::create().map_err(host("the maps of the kernel plane"))?;
        let program = maps.load()?;
        // Whoever finds the folder finds all that belongs into it. A bpffs takes no dots in names.
        let new = pins.with_file_name("steering-new");
        let attach = || {
            remove_pins(&new)?;
            fs::create_dir(&new)?;
            maps.pin(&new)?;
            bpf::pin(&program, &new.join("program"))?;
            let link = bpf::attach(&program, network_namespace()?.as_fd())?;
            bpf::pin(&link, &new.join("link"))?;
            fs::rename(&new, pins)?;
            Ok(link)
        };
        attach()
            .map(|link| maps.with(link, Book::default()))
            .map_err(host("the program could not be attached"))
    }

    fn adopt(pins: &Path) -> Result<Self, Unavailable> {
        let stale = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => host("what is pinned could not be opened")(error),
            _ => Unavailable::Stale(pins.to_owned(), error.to_string()),
        };
        let maps = Maps::adopt(pins).map_err(stale)?;
        let link = bpf::get(&pins.join("link")).map_err(stale)?;
        let (attached, namespace) = bpf::link_info(&link).map_err(stale)?;
        let own = network_namespace().and_then(|file| file.metadata()).map_err(stale)?.ino();
        if u64::from(namespace) != own {
            return Err(stale(io::Error::other("it is attached to another network namespace")));
        }
        let program = maps.load()?;
        let old = bpf::get(&pins.join("program")).and_then(|old| bpf::program_info(&old)).map_err(stale)?;
        let (_, tag) = bpf::program_info(&program).map_err(host("the program"))?;
        if old != (attached, tag) {
            let replace = || {
                bpf::replace(&link, &program)?;
                fs::remove_file(pins.join("program"))?;
                bpf::pin(&program, &pins.join("program"))
            };
            replace().map_err(host("the program of another version could not be replaced"))?;
            tracing::info!("the program of the kernel plane was replaced by that of this version");
        }
        let book = maps.book().map_err(stale)?;
        Ok(maps.with(link, book))
    }

    /// Takes all of it off the hook and out of the file system, also what is of another version; what is open lives on
    /// in this process alone, without effect.
    pub(super) fn take_down(folder: &Path) -> io::Result<()> {
        for name in ["steering", "steering-new"] {
            remove_pins(&folder.join(name))?;
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // What is in it is in the maps as well, each entry for itself.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an app; a new one for one that has none.
    pub(super) fn number(&self, name: &AppName) -> io::Result<u32> {
        let mut book = self.book();
        if let Some(number) = book.numbers.get(name.as_str()) {
            return Ok(*number);
        }
        let taken: BTreeSet<u32> = book.numbers.values().copied().collect();
        let number = (0..APPS)
            .find(|number| !taken.contains(number))
            .ok_or_else(|| io::Error::other(format!("the kernel plane has place for {APPS} apps")))?;
        self.steer(number, name, Course::default())?;
        book.numbers.insert(name.as_str().to_owned(), number);
        Ok(number)
    }

    /// The names of all apps that it knows.
    pub(super) fn names(&self) -> Vec<String> {
        self.book().numbers.keys().cloned().collect()
    }

    /// Where an app's connections go.
    pub(super) fn course(&self, number: u32) -> io::Result<Course> {
        let bytes = self.apps.get(&number.to_ne_bytes())?;
        Ok(bytes.and_then(|bytes| Entry::decode(&bytes)).map(|app| app.course).unwrap_or_default())
    }

    /// Sends an app's connections there from one packet to the next.
    pub(super) fn steer(&self, number: u32, name: &AppName, course: Course) -> io::Result<()> {
        let entry = Entry { course, name: name.as_str().to_owned() };
        self.apps.set(&number.to_ne_bytes(), &entry.encode())
    }

    /// Makes these the sockets of a colour, by IP version; `None`: connections fall through to dorc's own listener.
    pub(super) fn seat(&self, number: u32, colour: Colour, sockets: [Option<&OwnedFd>; 2]) -> io::Result<()> {
        for (key, socket) in socket_keys(number, colour).into_iter().zip(sockets) {
            match socket {
                // A descriptor that is open is not negative.
                Some(socket) => self.sockets.set(&key, &(socket.as_raw_fd() as u64).to_ne_bytes())?,
                None => drop(self.sockets.delete(&key)?),
            }
        }
        Ok(())
    }

    /// Whether a colour has a living socket.
    pub(super) fn has_socket(&self, number: u32, colour: Colour) -> bool {
        socket_keys(number, colour).iter().any(|key| matches!(self.sockets.get(key), Ok(Some(_))))
    }

    /// Steers these addresses, and no others, to the app.
    pub(super) fn route(&self, number: u32, addresses: &[SocketAddr]) -> io::Result<()> {
        let mut book = self.book();
        let wanted: Vec<_> = addresses.iter().map(|address| route_key(*address)).collect();
        for key in &wanted {
            if book.routes.get(key) != Some(&number) {
                self.routes.set(key, &number.to_ne_bytes())?;
                book.routes.insert(*key, number);
            }
        }
        let unwanted = book.routes.extract_if(.., |key, owner| *owner == number && !wanted.contains(key));
        for (key, _) in unwanted.collect::<Vec<_>>() {
            self.routes.delete(&key)?;
        }
        Ok(())
    }

    /// Forgets an app; from here on its connections fall through.
    pub(super) fn forget(&self, name: &AppName) -> io::Result<()> {
        let Some(number) = self.book().numbers.get(name.as_str()).copied() else { return Ok(()) };
        self.route(number, &[])?;
        for colour in Colour::BOTH {
            self.seat(number, colour, [None, None])?;
            for key in socket_keys(number, colour) {
                self.counts.set(&key, &[0; COUNTS])?;
            }
        }
        self.apps.set(&number.to_ne_bytes(), &[0; APP])?;
        self.book().numbers.remove(name.as_str());
        Ok(())
    }

    /// How many connections went to a colour's own sockets.
    pub(super) fn steered(&self, number: u32, colour: Colour) -> io::Result<u64> {
        let mut sum = 0;
        for key in socket_keys(number, colour) {
            // What was missed and what was refused stand behind it.
            let count = self.counts.get(&key)?.and_then(|counts| counts.first_chunk().copied());
            sum += count.map_or(0, u64::from_ne_bytes);
        }
        Ok(sum)
    }
}

/// The maps without their program.
struct Maps {
    routes: Map<ROUTE_KEY, 4>,
    apps: Map<4, APP>,
    sockets: Map<4, 8>,
    counts: Map<4, COUNTS>,
}

fn label(map: &str) -> String {
    format!("{map}_{LAYOUT}")
}

impl Maps {
    fn create() -> io::Result<Self> {
        Ok(Self {
            routes: Map::create(Kind::Hash, ROUTES, &label("routes"))?,
            apps: Map::create(Kind::Array, APPS, &label("apps"))?,
            sockets: Map::create(Kind::Sockets, APPS * SOCKETS_PER_APP, &label("sockets"))?,
            counts: Map::create(Kind::Array, APPS * SOCKETS_PER_APP, &label("counts"))?,
        })
    }

    fn adopt(pins: &Path) -> io::Result<Self> {
        let path = |name: &str| pins.join(name);
        let sockets = APPS * SOCKETS_PER_APP;
        Ok(Self {
            routes: Map::adopt(&path("routes"), Kind::Hash, ROUTES, &label("routes"))?,
            apps: Map::adopt(&path("apps"), Kind::Array, APPS, &label("apps"))?,
            sockets: Map::adopt(&path("sockets"), Kind::Sockets, sockets, &label("sockets"))?,
            counts: Map::adopt(&path("counts"), Kind::Array, sockets, &label("counts"))?,
        })
    }

    fn pin(&self, folder: &Path) -> io::Result<()> {
        bpf::pin(self.routes.descriptor(), &folder.join("routes"))?;
        bpf::pin(self.apps.descriptor(), &folder.join("apps"))?;
        bpf::pin(self.sockets.descriptor(), &folder.join("sockets"))?;
        bpf::pin(self.counts.descriptor(), &folder.join("counts"))
    }

    fn load(&self) -> Result<OwnedFd, Unavailable> {
        let maps = program::Maps {
            routes: self.routes.descriptor().as_raw_fd(),
            apps: self.apps.descriptor().as_raw_fd(),
            sockets: self.sockets.descriptor().as_raw_fd(),
            counts: self.counts.descriptor().as_raw_fd(),
        };
        load(&program::instructions(maps))
    }

    /// What the maps have by now.
    fn book(&self) -> io::Result<Book> {
        let mut book = Book::default();
        for number in 0..APPS {
            let entry = self.apps.get(&number.to_ne_bytes())?.and_then(|bytes| Entry::decode(&bytes));
            if let Some(entry) = entry {
                book.numbers.insert(entry.name, number);
            }
        }
        for key in self.routes.keys()? {
            if let Some(number) = self.routes.get(&key)? {
                book.routes.insert(key, u32::from_ne_bytes(number));
            }
        }
        Ok(book)
    }

    fn with(self, link: OwnedFd, book: Book) -> Steering {
        let Self { routes, apps, sockets, counts } = self;
        Steering { routes, apps, sockets, counts, _link: link, book: Mutex::new(book) }
    }
}

fn load(instructions: &[program::Instruction]) -> Result<OwnedFd, Unavailable> {
    bpf::load(instructions, PROGRAM).map_err(|LoadError { error, verifier }| {
        if verifier.is_empty() {
            host("the program was not loaded")(error)
        } else {
            Unavailable::Host(format!("the kernel refused the program: {verifier} ({error})"))
        }
    })
}

/// What `apps` has for one app.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    course: Course,
    name: String,
}

const fn active(colour: Colour) -> u32 {
    match colour {
        Colour::Blue => 1,
        Colour::Green => 2,
    }
}

impl Entry {
    fn encode(&self) -> [u8; APP] {
        let mut bytes = [0; APP];
        let mut put = |place: usize, word: u32| bytes[place..place + 4].copy_from_slice(&word.to_ne_bytes());
        // They fall through to dorc's own listener while all are held (a daemon that starts then knows of no pause), and where a
        // service wants a header.
        let falls_through = self.course.held || self.course.has_headers();
        if let Some(Target { colour, address, .. }) = self.course.target.filter(|_| !falls_through) {
            put(0, active(colour));
            put(4, u32::from(address.port()));
            if let Some(Canary { target, share }) = self.course.canary {
                put(APP_THRESHOLD, course::threshold(share));
                put(APP_THRESHOLD + 4, u32::from(target.address.port()));
            }
        }
        const { assert!(MAX_NAME < APP_NAME.end - APP_NAME.start) };
        for (place, byte) in bytes[APP_NAME].iter_mut().zip(self.name.bytes()) {
            *place = byte;
        }
        bytes
    }

    /// `None`: it is nobody's.
    fn decode(bytes: &[u8; APP]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |place: usize| u32::from_ne_bytes(words[place / 4]);
        let name = String::from_utf8_lossy(&bytes[APP_NAME]).trim_end_matches('\0').to_owned();
        let target = |colour: Colour, port: u32| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?));
            Some(Target::new(colour, address))
        };
        let colour = Colour::BOTH.into_iter().find(|colour| active(*colour) == word(0));
        let active = colour.and_then(|colour| target(colour, word(4)));
        let canary = active.and_then(|active| {
            let share = course::share_of(word(APP_THRESHOLD))?;
            Some(Canary { target: target(active.colour.other(), word(APP_THRESHOLD + 4))?, share })
        });
        (!name.is_empty()).then_some(Self { course: Course { target: active, canary, held: false }, name })
    }
}

/// The keys of a colour's sockets and counts, for IPv4 and IPv6.
fn socket_keys(number: u32, colour: Colour) -> [[u8; 4]; 2] {
    [false, true].map(|ipv6| program::socket_number(number, active(colour), ipv6).to_ne_bytes())
}

fn route_key(address: SocketAddr) -> [u8; ROUTE_KEY] {
    let mut key = [0; ROUTE_KEY];
    let (family, port) = (if address.is_ipv4() { AF_INET } else { AF_INET6 }, u32::from(address.port()));
    key[..4].copy_from_slice(&family.to_ne_bytes());
    key[4..8].copy_from_slice(&port.to_ne_bytes());
    match address.ip() {
        IpAddr::V4(ip) => key[8..12].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key[8..].copy_from_slice(&ip.octets()),
    }
    key
}

fn network_namespace() -> io::Result<File> {
    File::open("/proc/self/ns/net")
}

/// Refuses where somebody else's program is on the hook: of several the last one decides.
fn attached_by_others() -> Result<(), Unavailable> {
    let query = || bpf::attached(network_namespace()?.as_fd());
    let others = query().map_err(host("the hook could not be asked"))?;
    if others.is_empty() {
        return Ok(());
    }
    let ids = others.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    Err(Unavailable::Host(format!(
        "another program decides about connections in this network namespace (sk_lookup, program {ids}; bpftool prog shows it)"
    )))
}

/// Mounts a bpffs, unless one is there.
fn mount(folder: &Path) -> io::Result<()> {
    use rustix::mount::MountFlags;
    /// `BPF_FS_MAGIC`
    const BPFFS: u64 = 0xcafe_4a11;
    fs::create_dir_all(folder)?;
    if rustix::fs::statfs(folder)?.f_type as u64 & 0xffff_ffff == BPFFS {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("bpf", folder, "bpf", flags, c"mode=0700")?)
}

/// Unmounts it and deletes the folder.
pub(super) fn unmount(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    match rustix::mount::unmount(folder, rustix::mount::UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => fs::remove_dir(folder),
        Err(error) => Err(error.into()),
    }
}

fn remove_pins(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::share::Share;

    #[test]
    fn a_program_that_the_kernel_refuses_is_a_reason_for_the_tcp_plane() {
        // `exit`, without saying first what is returned.
        let refused = load(&[0x95]).expect_err("nothing is returned").to_string();
        let root = rustix::process::geteuid().is_root();
        let reason = if root { "the kernel refused the program: R0 !read_ok" } else { "the program was not" };
        assert!(refused.starts_with(reason), "{refused}");
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let name = "a".repeat(MAX_NAME);
        let target = |colour| Target::new(colour, SocketAddr::from((Ipv4Addr::LOCALHOST, 65535)));
        for colour in [None, Some(Colour::Blue), Some(Colour::Green)] {
            let course = Course::default().point_at(colour.map(target));
            let canary = colour.and_then(|colour: Colour| {
                Some(Canary { target: target(colour.other()), share: Share::new(9_999)? })
            });
            for course in [course, course.split(canary)] {
                let entry = Entry { course, name: name.clone() };
                assert_eq!(Entry::decode(&entry.encode()), Some(entry));
            }
        }
        assert_eq!(Entry::decode(&[0; APP]), None);
    }

    #[test]
    fn an_entry_from_before_there_were_canaries_has_none() {
        let mut bytes = [0; APP];
        bytes[..12].copy_from_slice(&[2, 0, 0, 0, 80, 0, 0, 0, b'w', b'e', b'b', 0]);
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!((entry.name.as_str(), entry.course.canary), ("web", None));
        assert_eq!(entry.course.target.map(|target| target.colour), Some(Colour::Green));
        assert_eq!(entry.encode(), bytes);
    }

    #[test]
    fn a_route_is_for_one_address_of_one_version() {
        let keys: Vec<_> = ["0.0.0.0:80", "[::]:80", "127.0.0.1:80", "127.0.0.1:81", "[::1]:80"]
            .map(|text| route_key(text.parse().expect("an address")))
            .into_iter()
            .collect();
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[place + 1..].contains(key));
        }
        assert_eq!(keys[2], [2, 0, 0, 0, 80, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
