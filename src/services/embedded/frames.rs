//! What the supervisor and a guard tell each other over a socket pair.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The longest frame: an environment and an argument list that the kernel would still take.
const MAX_FRAME: usize = 8 << 20;

/// What the supervisor orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Start the program with this environment, as `NAME=VALUE`.
    Start(Vec<String>),
    /// End the program: by this command, else by SIGTERM.
    Stop(Option<Vec<String>>),
    /// Make the program reload: by this command, else by SIGHUP.
    Reload(Option<Vec<String>>),
}

/// What a guard reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The program runs, as this process.
    Started(u32),
    /// The program could not be started.
    Failed(String),
    /// The program said that it is ready.
    Ready,
    /// The program's main process ended like this, and all that it wrote is in the log.
    Exited(String),
    /// The reload that was ordered was done, or went wrong like this.
    Reloaded(Result<(), String>),
}

/// A message as words, the first of which is its verb.
pub(super) trait Words: Sized {
    /// Takes the message apart.
    fn into_words(self) -> Vec<String>;
    /// Puts it together again; `None` for what the other side can't have meant.
    fn from_words(words: Vec<String>) -> Option<Self>;
}

impl Words for Order {
    fn into_words(self) -> Vec<String> {
        let (verb, rest) = match self {
            Self::Start(env) => ("start", env),
            Self::Stop(command) => ("stop", command.unwrap_or_default()),
            Self::Reload(command) => ("reload", command.unwrap_or_default()),
        };
        std::iter::once(verb.to_owned()).chain(rest).collect()
    }

    fn from_words(words: Vec<String>) -> Option<Self> {
        let mut words = words.into_iter();
        let verb = words.next()?;
        let rest: Vec<_> = words.collect();
        let command = |words: Vec<String>| if words.is_empty() { None } else { Some(words) };
        match verb.as_str() {
            "start" => Some(Self::Start(rest)),
            "stop" => Some(Self::Stop(command(rest))),
            "reload" => Some(Self::Reload(command(rest))),
            _ => None,
        }
    }
}

impl Words for Report {
    fn into_words(self) -> Vec<String> {
        let (verb, text) = match self {
            Self::Started(pid) => ("started", pid.to_string()),
            Self::Failed(reason) => ("failed", reason),
            Self::Ready => ("ready", String::new()),
            Self::Exited(how) => ("exited", how),
            Self::Reloaded(Ok(())) => ("reloaded", String::new()),
            Self::Reloaded(Err(reason)) => ("not-reloaded", reason),
        };
        vec![verb.to_owned(), text]
    }

    fn from_words(words: Vec<String>) -> Option<Self> {
        let [verb, text] = <[String; 2]>::try_from(words).ok()?;
        match verb.as_str() {
            "started" => Some(Self::Started(text.parse().ok()?)),
            "failed" => Some(Self::Failed(text)),
            "ready" => Some(Self::Ready),
            "exited" => Some(Self::Exited(text)),
            "reloaded" => Some(Self::Reloaded(Ok(()))),
            "not-reloaded" => Some(Self::Reloaded(Err(text))),
            _ => None,
        }
    }
}

/// One end of the socket pair. A frame is its length in four bytes and its words, each ended by a NUL byte.
pub(super) struct Frames {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Frames {
    /// Speaks over that stream.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// The next message; `None` when the other side is gone, or talks nonsense. A call that is dropped loses nothing.
    pub(super) async fn next<M: Words>(&mut self) -> Option<M> {
        loop {
            if let Some((head, rest)) = self.unread.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if length > MAX_FRAME {
                    return None;
                }
                if let Some(body) = rest.get(..length) {
                    let text = std::str::from_utf8(body).ok()?;
                    let words = text.split_terminator('\0').map(str::to_owned).collect();
                    self.unread.drain(..4 + length);
                    return M::from_words(words);
                }
            }
            if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: impl Words) -> io::Result<()> {
        let mut body = vec![0; 4];
        for word in message.into_words() {
            if word.contains('\0') {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in a word"));
            }
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        let length = u32::try_from(body.len() - 4).ok().filter(|length| *length as usize <= MAX_FRAME);
        let length = length.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "environment or command is too long")
        })?;
        body[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_as_they_were_sent() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Frames::new(near), Frames::new(far));
        let orders = [
            Order::Start(vec!["A=b\nc".into(), "EMPTY=".into()]),
            Order::Stop(None),
            Order::Stop(Some(vec!["/bin/x".into(), String::new(), "a b".into()])),
            Order::Reload(None),
        ];
        for order in &orders {
            near.send(order.clone()).await.unwrap();
        }
        drop(near);
        for order in orders {
            assert_eq!(far.next::<Order>().await, Some(order));
        }
        assert_eq!(far.next::<Order>().await, None);
    }

    #[tokio::test]
    async fn words_with_nul_bytes_are_refused() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(Frames::new(near).send(Order::Start(vec!["A=\0".into()])).await.is_err());
    }
}
