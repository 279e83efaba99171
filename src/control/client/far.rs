//! The way to a daemon on another machine: over a program, as ssh, whose standard input and output speak with it.

use std::process::Stdio;
use std::time::Duration;

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::join;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{ClientError, Sent};

/// How long a program that has broken off may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a daemon is, and how it is reached.
#[derive(Debug)]
pub(super) struct Far {
    host: String,
    words: Vec<String>,
    /// One connection for all requests; made again where the daemon has closed it meanwhile.
    line: Mutex<Option<Line>>,
}

#[derive(Debug)]
struct Line {
    sender: SendRequest<Sent>,
    program: Child,
}

impl Far {
    /// The daemon of `host`, reached by this program and its arguments.
    pub(super) fn new(host: String, words: Vec<String>) -> Self {
        Self { host, words, line: Mutex::new(None) }
    }

    /// Sends a request; one at a time.
    pub(super) async fn ask(&self, request: Request<Sent>) -> Result<Response<Incoming>, ClientError> {
        let mut slot = self.line.lock().await;
        if let Some(line) = slot.as_mut()
            && line.sender.ready().await.is_err()
        {
            *slot = None;
        }
        let line = match slot.take() {
            Some(line) => slot.insert(line),
            None => slot.insert(self.open().await?),
        };
        match line.sender.send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                let ended = timeout(PATIENCE, line.program.wait()).await;
                *slot = None;
                Err(match ended {
                    Ok(Ok(status)) => ClientError::Far { host: self.host.clone(), status: status.code() },
                    _ => ClientError::Broken(format!("{}: {error}", self.host)),
                })
            }
        }
    }

    async fn open(&self) -> Result<Line, ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::Broken(format!("{}: {error}", self.host));
        let (program, arguments) = self.words.split_first().ok_or_else(|| broken(&"no program is named"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| broken(&format!("{program} can't be run: {error}")))?;
        let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(broken(&"it has no standard input and output"));
        };
        let (sender, connection) =
            handshake(TokioIo::new(join(output, input))).await.map_err(|error| broken(&error))?;
        // It ends with the program, or with this line.
        tokio::spawn(connection);
        Ok(Line { sender, program: child })
    }
}
