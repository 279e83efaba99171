//! The bytes of a stream as they arrive, and what they decompress to.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tokio::sync::mpsc;

use crate::model::release::Digest;
use crate::releases::digest;

/// What is sent of a stream. One that ends without `End` is given up.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Bytes),
    End,
}

/// Reads a stream as it arrives, and hashes it. Blocks.
#[derive(Clone)]
pub(super) struct Arriving(Rc<RefCell<State>>);

struct State {
    parts: mpsc::Receiver<Part>,
    rest: Bytes,
    ended: bool,
    hash: blake3::Hasher,
}

impl Arriving {
    pub(super) fn new(parts: mpsc::Receiver<Part>) -> Self {
        let hash = blake3::Hasher::new();
        Self(Rc::new(RefCell::new(State { parts, rest: Bytes::new(), ended: false, hash })))
    }

    /// Whether nobody sends any more, although it had not come to its end.
    pub(super) fn is_given_up(&self) -> bool {
        let state = self.0.borrow();
        !state.ended && state.parts.is_closed()
    }

    /// The digest of the whole stream, once it has come to its end.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut state = self.0.borrow_mut();
        while !state.ended {
            state.next()?;
        }
        Ok(digest::of(&state.hash))
    }
}

impl State {
    fn next(&mut self) -> io::Result<()> {
        match self.parts.blocking_recv() {
            Some(Part::Bytes(bytes)) => {
                self.hash.update(&bytes);
                self.rest = bytes;
            }
            Some(Part::End) => self.ended = true,
            None => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        Ok(())
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        while state.rest.is_empty() && !state.ended {
            state.next()?;
        }
        let have = buffer.len().min(state.rest.len());
        state.rest.copy_to_slice(&mut buffer[..have]);
        Ok(have)
    }
}

/// What a stream decompresses to, by its first bytes; one that is not compressed is that itself.
pub(super) fn decompressed(mut arriving: Arriving) -> io::Result<Box<dyn Read>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match arriving.read(&mut head[have..])? {
            0 => break,
            more => have += more,
        }
    }
    let whole = Read::chain(Read::take(Cursor::new(head), have as u64), arriving);
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Zstd::new(whole)),
        _ => Box::new(whole),
    })
}

/// Decodes Zstandard, all frames of it.
struct Zstd<R> {
    source: BufReader<R>,
    frame: FrameDecoder,
}

impl<R: Read> Zstd<R> {
    fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(128 << 10, source), frame: FrameDecoder::new() }
    }

    /// Begins the next frame, or passes over one that says it has no content.
    fn begin(&mut self) -> io::Result<()> {
        match self.frame.init(&mut self.source) {
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink()).map(drop),
            begun => begun.map_err(io::Error::other),
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.frame.can_collect() > 0 {
                return self.frame.read(buffer);
            }
            if !self.frame.is_finished() {
                let block = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.source, block).map_err(io::Error::other)?;
            } else if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            } else {
                self.begin()?;
            }
        }
    }
}

/// Reads only as much as is allowed, however much there would be: a small stream can decompress to a disk full.
pub(super) struct Metered<R> {
    inner: R,
    allowed: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Metered<R> {
    /// A reader and its allowance, which is `None` once more was wanted.
    pub(super) fn new(inner: R) -> (Self, Rc<Cell<Option<u64>>>) {
        let allowed = Rc::new(Cell::new(Some(0)));
        (Self { inner, allowed: allowed.clone() }, allowed)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get().unwrap_or(0);
        if allowed == 0 && !buffer.is_empty() {
            self.allowed.set(None);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = usize::try_from(allowed).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.allowed.set(Some(allowed - read as u64));
        Ok(read)
    }
}
