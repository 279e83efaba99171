//! Sends an upload. Its answer may come before its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper::header::HeaderValue;
use tokio::sync::mpsc;

use super::{Client, ClientError, Lines, api, cannot_ask};
use api::upload::{LABEL, Manner, OFFSET, ONLY_STORE};

impl Client {
    /// Sends the bytes of an upload from `offset` on, as they come, and hands on each event until the answer comes.
    ///
    /// # Errors
    /// There is no daemon, it refused, or it went away before it answered.
    pub async fn upload(
        &self,
        path: &str,
        offset: u64,
        manner: Manner,
        mut bytes: mpsc::Receiver<Bytes>,
        event: impl FnMut(api::Event),
    ) -> Result<api::Answer, ClientError> {
        let answered = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&answered);
        let frames = futures_util::stream::poll_fn(move |context| {
            if stop.load(Ordering::Relaxed) {
                return Poll::Ready(None);
            }
            bytes.poll_recv(context).map(|bytes| Some(Ok::<_, Infallible>(Frame::data(bytes?))))
        });
        let mut request = Request::post(path).header(OFFSET, offset);
        if manner.only_store {
            request = request.header(ONLY_STORE, "1");
        }
        if let Some(label) = manner.label {
            let label = HeaderValue::from_bytes(label.as_bytes());
            request = request.header(LABEL, label.map_err(|error| cannot_ask(path, &error))?);
        }
        let request = request.body(StreamBody::new(frames)).map_err(|error| cannot_ask(path, &error))?;
        let response = self.ask(request).await?;
        // What is not sent by now is not wanted.
        answered.store(true, Ordering::Relaxed);
        Lines { response, rest: Vec::new() }.answer(event).await
    }
}
