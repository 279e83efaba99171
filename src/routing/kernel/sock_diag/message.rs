//! The messages themselves: requests are written, answers taken apart, byte by byte as in linux/netlink.h and
//! linux/inet_diag.h. Nothing in an answer is believed: what is too short is no message.

use super::found::Id;

/// The families of addresses, as numbers of one byte.
pub(super) const INET: u8 = 2;
/// See [`INET`].
pub(super) const INET6: u8 = 10;
/// Dumps are of one family each.
pub(super) const FAMILIES: [u8; 2] = [INET, INET6];

/// Kinds of messages: the end of a dump, an error (or, with 0, that it was done), and about sockets.
pub(super) const ERROR: u16 = 2;
/// See [`ERROR`].
pub(super) const DONE: u16 = 3;
/// See [`ERROR`].
pub(super) const SOCKET: u16 = 20;
const DESTROY: u16 = 21;

/// Flags of messages: one of many, and that the dump is not of one piece.
pub(super) const MULTI: u16 = 0x2;
/// See [`MULTI`].
pub(super) const INTERRUPTED: u16 = 0x10;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

const TCP: u8 = 6;
/// `INET_DIAG_INFO` as a bit of what is asked for beside the socket itself.
const WITH_INFO: u8 = 1 << 1;
/// `INET_DIAG_REQ_BYTECODE`.
const FILTER: u16 = 1;
const HEADER: usize = 16;
/// The size of `struct inet_diag_req_v2`.
const QUESTION: usize = 56;

/// What the kernel is asked for.
#[derive(Debug, Clone)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    states: u32,
    id: Id,
    filter: Vec<u8>,
}

impl Request {
    /// All sockets of the family in one of these states (bits).
    pub(super) fn dump(family: u8, states: u32) -> Self {
        Self { kind: SOCKET, flags: REQUEST | DUMP, states, id: Id::any(family), filter: Vec::new() }
    }

    /// Only those that the filter wants.
    pub(super) fn filtered(self, filter: Vec<u8>) -> Self {
        Self { filter, ..self }
    }

    /// That one socket.
    pub(super) fn look_at(id: &Id) -> Self {
        Self { kind: SOCKET, flags: REQUEST, states: u32::MAX, id: *id, filter: Vec::new() }
    }

    /// The end of that one socket.
    pub(super) fn destroy(id: &Id) -> Self {
        Self { kind: DESTROY, flags: REQUEST | ACKNOWLEDGE, ..Self::look_at(id) }
    }

    /// As it is sent.
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let attribute = if self.filter.is_empty() { 0 } else { 4 + self.filter.len() };
        let length = u32::try_from(HEADER + QUESTION + attribute).expect("a filter has a limited size");
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.id.family(), TCP, WITH_INFO, 0]);
        bytes.extend(self.states.to_ne_bytes());
        bytes.extend(self.id.raw());
        if attribute > 0 {
            bytes.extend(u16::try_from(attribute).expect("a filter has a limited size").to_ne_bytes());
            bytes.extend(FILTER.to_ne_bytes());
            bytes.extend(&self.filter);
        }
        bytes
    }
}

/// One message of what was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// Takes the first message off; `None` if there is no whole one.
pub(super) fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        body: bytes.get(HEADER..length)?,
    };
    Some((message, behind(bytes, length)))
}

/// The attributes as far as they are whole: their kinds and what they hold.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits say something about the contents.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let held = bytes.get(4..length)?;
        bytes = behind(bytes, length);
        Some((kind, held))
    })
}

/// What comes behind something of that length: everything begins at a multiple of four.
fn behind(bytes: &[u8], length: usize) -> &[u8] {
    length.checked_next_multiple_of(4).and_then(|next| bytes.get(next..)).unwrap_or_default()
}

/// The bytes at that place, if there are so many.
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The number at that place.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

/// The number at that place.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

/// The number at that place.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_length_that_it_says() {
        for (filter, length) in [(vec![], 72), (vec![0; 20], 96)] {
            let bytes = Request::dump(INET6, 1 << 10).filtered(filter).encode(7);
            assert_eq!(bytes.len(), length);
            let (message, rest) = split(&bytes).expect("it is whole");
            assert_eq!((message.kind, message.flags, message.sequence), (20, 0x301, 7));
            assert_eq!(message.body[..8], [[10, 6, 2, 0], 1024_u32.to_ne_bytes()].concat());
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_message_must_be_whole() {
        let whole = Request::dump(INET, 0).encode(1);
        for length in 0..whole.len() {
            assert_eq!(split(&whole[..length]), None, "{length}");
        }
        for says in [0, 1, 15, 73, u32::MAX] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&says.to_ne_bytes());
            assert_eq!(split(&lying), None, "{says}");
        }
    }

    #[test]
    fn attributes_end_where_they_stop_being_whole() {
        let one = |length: u16, kind: u16| [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        let mut bytes = [one(5, 11), vec![1, 0, 0, 0], one(8, 0x8000 | 2), vec![9; 4]].concat();
        let two: Vec<(u16, &[u8])> = vec![(11, &[1]), (2, &[9; 4])];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), two);
        for hostile in [one(0, 1), one(3, 1), one(5, 1), one(u16::MAX, 1), vec![1]] {
            bytes.truncate(16);
            bytes.extend(hostile);
            assert_eq!(attributes(&bytes).count(), 2);
        }
    }
}
