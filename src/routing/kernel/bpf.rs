//! The few calls of bpf(2) that dorc needs, made safe: sizes are part of the types, descriptors are owned.
#![allow(unsafe_code, reason = "no safe crate of ours makes these calls")]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Keys of any kind; memory is taken as it fills.
    Hash = 1,
    /// As many values as there may be, numbered.
    Array = 2,
    /// As an array, of sockets, which leave it by themselves when they are closed.
    Sockets = 15,
}

impl Kind {
    /// `BPF_F_NO_PREALLOC` where there is a choice.
    const fn flags(self) -> u32 {
        match self {
            Self::Hash => 1,
            Self::Array | Self::Sockets => 0,
        }
    }
}

/// How long a name of a map or a program may be, with the zero at its end.
const NAME: usize = 16;
/// `BPF_PROG_TYPE_SK_LOOKUP`
const PROGRAM_TYPE: u32 = 30;
/// `BPF_SK_LOOKUP`
const ATTACH_TYPE: u32 = 36;
/// How much the verifier may write.
const LOG: usize = 64 * 1024;
/// How many programs one namespace can have on the hook.
const MOST_PROGRAMS: usize = 64;

// Commands of bpf(2).
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const INFO: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

// The parts of `union bpf_attr`, from `linux/bpf.h`.

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME],
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct GetInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct CreateLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct UpdateLink {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

// The heads of what `INFO` answers.

#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; NAME],
}

#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    namespace: u32,
    attach_type: u32,
}

/// Makes the call.
///
/// # Safety
/// `T` is what the command expects, and the pointers in it are good for what the command does with them.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the size that it is given, and the rest is the caller's word.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Makes a call that answers with a new descriptor.
///
/// # Safety
/// As `bpf`, and the command is one of those.
unsafe fn bpf_open<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's word. The descriptor is new, and nobody else knows it.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(command, attributes)?)) }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    // A descriptor that is open is not negative.
    descriptor.as_raw_fd() as u32
}

fn name(text: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    for (place, byte) in name.iter_mut().take(NAME - 1).zip(text.bytes()) {
        *place = byte;
    }
    name
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A map with keys of `K` and values of `V` bytes.
#[derive(Debug)]
pub(super) struct Map<const K: usize, const V: usize>(OwnedFd);

impl<const K: usize, const V: usize> Map<K, V> {
    /// Makes an empty one.
    pub(super) fn create(kind: Kind, entries: u32, label: &str) -> io::Result<Self> {
        let mut attributes = CreateMap {
            kind: kind as u32,
            key_size: K as u32,
            value_size: V as u32,
            max_entries: entries,
            flags: kind.flags(),
            inner_map: 0,
            numa_node: 0,
            name: name(label),
        };
        // SAFETY: it has no pointers, and opens a map.
        unsafe { bpf_open(MAP_CREATE, &mut attributes).map(Self) }
    }

    /// Takes one that was pinned, if it is as `create` would make it.
    pub(super) fn adopt(path: &Path, kind: Kind, entries: u32, label: &str) -> io::Result<Self> {
        let descriptor = get(path)?;
        let found: MapInfo = info(&descriptor)?;
        let fits = (found.kind, found.key_size, found.value_size, found.max_entries, found.name)
            == (kind as u32, K as u32, V as u32, entries, name(label));
        if fits { Ok(Self(descriptor)) } else { Err(io::Error::other("it is a map of another kind")) }
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    fn element(&self, key: &[u8; K], value: u64, flags: u64) -> Element {
        Element { map: number(self.as_fd()), padding: 0, key: key.as_ptr() as u64, value, flags }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }

    /// Sets a value.
    pub(super) fn set(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        let mut attributes = self.element(key, value.as_ptr() as u64, 0);
        // SAFETY: the map's keys and values have the sizes of these arrays, which live until it returns.
        unsafe { bpf(MAP_UPDATE, &mut attributes).map(drop) }
    }

    /// Reads a value.
    pub(super) fn get(&self, key: &[u8; K]) -> io::Result<Option<[u8; V]>> {
        let mut value = [0; V];
        let mut attributes = self.element(key, value.as_mut_ptr() as u64, 0);
        // SAFETY: as in `set`; the kernel writes as many bytes as the map's values have.
        present(unsafe { bpf(MAP_LOOKUP, &mut attributes) }).map(|found| found.then_some(value))
    }

    /// Takes a key out; false if it was not in.
    pub(super) fn delete(&self, key: &[u8; K]) -> io::Result<bool> {
        let mut attributes = self.element(key, 0, 0);
        // SAFETY: as in `set`.
        match unsafe { bpf(MAP_DELETE, &mut attributes) } {
            // What a sockmap says of a place that is empty.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            result => present(result),
        }
    }

    /// All keys, as long as nobody else changes them.
    pub(super) fn keys(&self) -> io::Result<Vec<[u8; K]>> {
        let mut keys: Vec<[u8; K]> = Vec::new();
        loop {
            let mut next = [0; K];
            let before = keys.last().map_or(0, |key| key.as_ptr() as u64);
            let mut attributes = Element {
                map: number(self.as_fd()),
                padding: 0,
                key: before,
                value: next.as_mut_ptr() as u64,
                flags: 0,
            };
            // SAFETY: both are keys of this map or, for the first one, none.
            if !present(unsafe { bpf(MAP_NEXT_KEY, &mut attributes) })? {
                return Ok(keys);
            }
            keys.push(next);
        }
    }
}

fn present(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why a program was not loaded.
#[derive(Debug)]
pub(super) struct LoadError {
    /// What the call said.
    pub(super) error: io::Error,
    /// The last line of what the verifier wrote; empty where it did not get that far.
    pub(super) verifier: String,
}

/// Loads a program for the hook.
pub(super) fn load(instructions: &[u64], label: &str) -> Result<OwnedFd, LoadError> {
    let license = c"Dual MIT/GPL";
    let mut log = Vec::new();
    let attempt = |log: &mut [u8]| {
        let mut attributes = Load {
            kind: PROGRAM_TYPE,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: 0,
            name: name(label),
            interface: 0,
            attach_type: ATTACH_TYPE,
        };
        // SAFETY: the pointers are to as many instructions and bytes as it says, and the licence ends with a zero.
        unsafe { bpf_open(PROG_LOAD, &mut attributes) }
    };
    attempt(&mut []).or_else(|error| {
        log.resize(LOG, 0);
        // The first error counts: the log may not fit, which would be another one.
        attempt(&mut log).map_err(|_| {
            let text = String::from_utf8_lossy(&log);
            let lines = text.trim_end_matches('\0').lines();
            let told = lines.rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
            LoadError { error, verifier: told.unwrap_or_default().to_owned() }
        })
    })
}

/// Attaches a program to a network namespace, for as long as the link is open or pinned.
pub(super) fn attach(program: &OwnedFd, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = CreateLink {
        program: program.as_raw_fd() as u32,
        target: number(namespace),
        attach_type: ATTACH_TYPE,
        flags: 0,
    };
    // SAFETY: it has no pointers, and opens a link.
    unsafe { bpf_open(LINK_CREATE, &mut attributes) }
}

/// Puts another program in the place of the one that a link has attached, from one packet to the next.
pub(super) fn replace(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let mut attributes = UpdateLink {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    // SAFETY: it has no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attributes).map(drop) }
}

/// The numbers of the programs on the hook of a network namespace.
pub(super) fn attached(namespace: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MOST_PROGRAMS];
    let mut attributes = Query {
        target: number(namespace),
        attach_type: ATTACH_TYPE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: there is room for as many numbers as it says.
    unsafe { bpf(PROG_QUERY, &mut attributes)? };
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// Gives an object a name in a bpffs, by which it lives on without this process.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = Pin { path: path.as_ptr() as u64, descriptor: object.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path ends with a zero and lives until it returns.
    unsafe { bpf(OBJ_PIN, &mut attributes).map(drop) }
}

/// Opens an object by its name.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let c_path = c_path(path)?;
    let mut attributes = Pin { path: c_path.as_ptr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: as in `pin`; it opens an object.
    let object = unsafe { bpf_open(OBJ_GET, &mut attributes) };
    object.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("{} is not there", path.display())),
        _ => error,
    })
}

/// The number and the tag (a digest of its instructions) of a program.
pub(super) fn program_info(program: &OwnedFd) -> io::Result<(u32, [u8; 8])> {
    let found: ProgramInfo = info(program)?;
    if found.kind == PROGRAM_TYPE {
        Ok((found.id, found.tag))
    } else {
        Err(io::Error::other("it is a program of another kind"))
    }
}

/// The number of the program that a link has on the hook, and the inode of the network namespace; it is 0 when that is gone.
pub(super) fn link_info(link: &OwnedFd) -> io::Result<(u32, u32)> {
    let found: LinkInfo = info(link)?;
    if found.attach_type == ATTACH_TYPE {
        Ok((found.program, found.namespace))
    } else {
        Err(io::Error::other("it is a link of another kind"))
    }
}

fn info<T: Default>(object: &OwnedFd) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = GetInfo {
        descriptor: object.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes no more than the length that it is given, into plain numbers. What kind of object it is
    // tells `kind`, or the fields that are compared, so one that was not expected is only refused.
    unsafe { bpf(INFO, &mut attributes)? };
    Ok(info)
}
