//! The netlink socket: one question, and all of its answer.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::found::Found;
use super::message::{DONE, ERROR, INTERRUPTED, MULTI, Message, Request, SOCKET, split, u32_at};

/// The kernel answers while it is asked; this long it takes only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(1);
/// Even a dump of all that a machine can have is over by then.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a dump is tried that is not of one piece.
const TRIES: usize = 5;
/// The kernel makes its pieces no larger than this.
const BUFFER: usize = 64 * 1024;

/// One question at a time, and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Exchange {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: open_socket()?, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks, and waits for the whole answer. An error of the kernel's is told as it is.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Vec<Found>> {
        for _ in 0..TRIES {
            let answer = match self.try_once(request) {
                Ok(answer) => answer,
                Err(error) => {
                    // Nobody knows what is still to come on this one.
                    self.socket = open_socket()?;
                    return Err(error);
                }
            };
            if !answer.interrupted {
                return Ok(answer.found);
            }
        }
        let reason = "the kernel's sockets changed each time while they were listed";
        Err(io::Error::new(io::ErrorKind::ResourceBusy, reason))
    }

    fn try_once(&mut self, request: &Request) -> io::Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = request.encode(self.sequence);
        retry_on_intr(|| send(&self.socket, &message, SendFlags::empty()))?;
        let mut answer = Answer::default();
        let begun = Instant::now();
        while !answer.done {
            if begun.elapsed() > DEADLINE {
                return Err(no_answer());
            }
            let received = retry_on_intr(|| recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC));
            let length = match received {
                Err(Errno::AGAIN) => return Err(no_answer()),
                received => received?.1,
            };
            // It is the true length, also of what did not fit.
            let datagram = self.buffer.get(..length).ok_or_else(garbled)?;
            answer.take(datagram, self.sequence)?;
        }
        Ok(answer)
    }
}

fn open_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    // Connected to the kernel it hears nobody else.
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// What has come of an answer so far.
#[derive(Debug, Default)]
struct Answer {
    found: Vec<Found>,
    interrupted: bool,
    done: bool,
}

impl Answer {
    /// Takes in what was received; messages that answer something else are left out.
    fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<()> {
        let mut rest = datagram;
        if rest.is_empty() {
            return Err(garbled());
        }
        while !rest.is_empty() && !self.done {
            let (message, behind) = split(rest).ok_or_else(garbled)?;
            rest = behind;
            if message.sequence == sequence {
                self.take_message(&message)?;
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: &Message<'_>) -> io::Result<()> {
        self.interrupted |= message.flags & INTERRUPTED != 0;
        match message.kind {
            SOCKET => {
                self.found.push(Found::decode(message.body).ok_or_else(garbled)?);
                self.done = message.flags & MULTI == 0;
            }
            ERROR | DONE => {
                let code = u32_at(message.body, 0).ok_or_else(garbled)?.cast_signed();
                if code < 0 {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                self.done = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the kernel did not tell of its sockets in time")
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the kernel told of its sockets can't be understood")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).expect("it is short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
        bytes.extend(body);
        bytes
    }

    fn socket(flags: u16, sequence: u32) -> Vec<u8> {
        let mut body = [0; 72];
        body[0] = 2;
        message(SOCKET, flags, sequence, &body)
    }

    fn error(code: i32) -> Vec<u8> {
        message(ERROR, 0, 1, &code.to_ne_bytes())
    }

    fn done() -> Vec<u8> {
        message(DONE, MULTI, 1, &[0; 4])
    }

    #[test]
    fn a_dump_goes_on_to_its_end_over_several_pieces() {
        let mut answer = Answer::default();
        answer.take(&[socket(MULTI, 1), socket(MULTI, 1)].concat(), 1).expect("it is whole");
        assert_eq!((answer.found.len(), answer.done), (2, false));
        answer.take(&[socket(MULTI, 1), done()].concat(), 1).expect("it is whole");
        assert_eq!((answer.found.len(), answer.done, answer.interrupted), (3, true, false));
    }

    #[test]
    fn a_single_answer_and_an_acknowledgement_are_their_own_end() {
        for (bytes, found) in [(socket(0, 1), 1), (error(0), 0)] {
            let mut answer = Answer::default();
            answer.take(&bytes, 1).expect("it is whole");
            assert_eq!((answer.found.len(), answer.done), (found, true));
        }
    }

    #[test]
    fn what_is_left_of_another_question_is_ignored() {
        let mut answer = Answer::default();
        answer.take(&[socket(MULTI, 7), done()].concat(), 8).expect("it is whole");
        assert_eq!((answer.found.len(), answer.done), (0, false));
    }

    #[test]
    fn an_interruption_is_remembered() {
        let mut answer = Answer::default();
        answer.take(&[socket(MULTI | INTERRUPTED, 1), done()].concat(), 1).expect("it is whole");
        assert!(answer.interrupted && answer.done);
    }

    #[test]
    fn errors_are_the_kernels_own() {
        for bytes in [error(-22), message(DONE, MULTI, 1, &(-22_i32).to_ne_bytes())] {
            let error = Answer::default().take(&bytes, 1).expect_err("it is one");
            assert_eq!(error.raw_os_error(), Some(22));
        }
        assert!(Answer::default().take(&error(i32::MIN), 1).is_err());
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        let cut = [socket(MULTI, 1), socket(MULTI, 1)[..50].to_vec()].concat();
        let no_code = message(ERROR, 0, 1, &[0; 3]);
        let no_socket = message(SOCKET, MULTI, 1, &[2; 71]);
        for bytes in [cut, no_code, no_socket, Vec::new(), vec![0; 16]] {
            let error = Answer::default().take(&bytes, 1).expect_err("it is not whole");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    proptest! {
        #[test]
        fn rubbish_does_no_harm(at in 0_usize..188, bytes in prop::collection::vec(any::<u8>(), 1..8)) {
            let mut datagram = [socket(MULTI, 1), socket(MULTI, 1), done()].concat();
            for (place, byte) in datagram.iter_mut().skip(at).zip(bytes) {
                *place = byte;
            }
            let mut answer = Answer::default();
            // Either it is an error, or no more is found than was there.
            prop_assert!(answer.take(&datagram, 1).is_err() || answer.found.len() <= 2);
        }
    }
}
