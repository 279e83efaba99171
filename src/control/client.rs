//! The client: one connection a request, or one for all to another machine.

mod far;
mod upload;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::api;
use far::Far;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a request could not be made, or was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no daemon answers on {0}")]
    NoDaemon(PathBuf),
    /// The socket may not be used by this user.
    #[error("{0} may only be used by root, the group dorc and the deployers of apps")]
    NotPermitted(PathBuf),
    /// The way to another machine broke off.
    #[error("{host}: the way there broke off{}", status.map(|code| format!(" (exit status {code})")).unwrap_or_default())]
    Far {
        /// Where it led.
        host: String,
        /// How the program ended that leads there.
        status: Option<i32>,
    },
    /// The daemon does not let this user do that.
    #[error("{0}")]
    Forbidden(String),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the daemon did not answer to the end: {0}")]
    Broken(String),
}

/// The way to the daemon.
#[derive(Debug, Clone)]
pub struct Client(Way);

#[derive(Debug, Clone)]
enum Way {
    /// A connection a request.
    Socket(PathBuf),
    /// One for all.
    Far(Arc<Far>),
}

/// The body of a request.
type Sent = UnsyncBoxBody<Bytes, Infallible>;

impl Client {
    /// A client of the daemon whose socket is at `socket`.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self(Way::Socket(socket))
    }

    /// A client of the daemon of another machine, which this program and its arguments lead to.
    #[must_use]
    pub fn far(host: String, words: Vec<String>) -> Self {
        Self(Way::Far(Arc::new(Far::new(host, words))))
    }

    /// Asks for one JSON document.
    ///
    /// # Errors
    /// There is no daemon, or it refused.
    pub async fn get<T: api::FromJson>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send("GET", path, String::new()).await?;
        let body = read_all(response).await?;
        api::from_json(&body).map_err(ClientError::Broken)
    }

    /// Asks for a text.
    ///
    /// # Errors
    /// There is no daemon, or it refused.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = read_all(self.send("GET", path, String::new()).await?).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a command and hands on each event until the answer comes.
    ///
    /// # Errors
    /// There is no daemon, it refused, or it went away before it answered.
    pub async fn post(
        &self,
        path: &str,
        body: String,
        event: impl FnMut(api::Event),
    ) -> Result<api::Answer, ClientError> {
        self.lines("POST", path, body).await?.answer(event).await
    }

    /// The lines of a response as they come.
    ///
    /// # Errors
    /// There is no daemon, or it refused.
    pub async fn lines(&self, method: &str, path: &str, body: String) -> Result<Lines, ClientError> {
        Ok(Lines { response: self.send(method, path, body).await?, rest: Vec::new() })
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Result<Response<Incoming>, ClientError> {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body)));
        self.ask(request.map_err(|error| cannot_ask(path, &error))?).await
    }

    async fn ask<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("dorc"));
        let request = request.map(BodyExt::boxed_unsync);
        let response = match &self.0 {
            Way::Socket(socket) => ask_once(socket, request).await?,
            Way::Far(far) => far.ask(request).await?,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = if response.status() == StatusCode::FORBIDDEN {
            ClientError::Forbidden
        } else {
            ClientError::Refused
        };
        let body = read_all(response).await?;
        Err(refusal(match api::from_json::<api::Error>(&body) {
            Ok(error) => error.error,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        }))
    }
}

async fn ask_once(socket: &Path, request: Request<Sent>) -> Result<Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(socket.to_owned()),
        _ => ClientError::NoDaemon(socket.to_owned()),
    })?;
    let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the response, whose reader sees what goes wrong.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}

fn cannot_ask(path: &str, error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Refused(format!("{path} can't be asked for: {error}"))
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    http_body_util::Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| ClientError::Broken(error.to_string()))
}

/// The lines of a response.
#[derive(Debug)]
pub struct Lines {
    response: Response<Incoming>,
    rest: Vec<u8>,
}

impl Lines {
    /// Hands on each event until the answer comes.
    async fn answer(mut self, mut event: impl FnMut(api::Event)) -> Result<api::Answer, ClientError> {
        while let Some(line) = self.next().await? {
            match api::from_json(&line).map_err(ClientError::Broken)? {
                api::Event::Answer(answer) => return Ok(*answer),
                other => event(other),
            }
        }
        Err(ClientError::Broken("it went away".into()))
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, tail)));
            }
            match self.part().await? {
                Some(data) => self.rest.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
    }

    /// What comes next, whether it ends in a line end or not; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn part(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.response.body_mut().frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}
