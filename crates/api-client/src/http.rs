//! One request over HTTP/1.1 and our TLS: the only place that touches the network.

use crate::error::{chain, connection};
use crate::url::ServerUrl;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use landfall_api_types::{ApiError, codes};
use landfall_pki::tls;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for an answer, beyond what the request asks the server to wait.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer: the longest are lists of recovery points.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most connections that are kept for later requests.
const IDLE_MAX: usize = 2;

/// Whether a request may go over a connection that the server may be closing just now, and be sent
/// again then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same twice is the same as once.
    Harmless,
    /// It goes over a fresh connection and is never sent again.
    Never,
}

pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) repeat: Repeat,
    /// How long the server may take by request.
    pub(crate) wait: Duration,
}

pub(crate) struct Http {
    url: ServerUrl,
    tls: Arc<ClientConfig>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Http {
    pub(crate) const fn new(url: ServerUrl, tls: Arc<ClientConfig>) -> Self {
        Self { url, tls, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        call: Call<'_>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<R, ApiError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| {
                ApiError::new(&codes::INTERNAL, format!("encode the request: {error}"))
            })?,
            None => Vec::new(),
        };
        let answer = timeout(call.wait + ANSWER_TIMEOUT, self.send(&call, Bytes::from(body)));
        let (status, answer) = answer.await.map_err(|_| {
            let cause = format!("{} did not answer in time", self.url.authority());
            ApiError::new(&codes::SERVER_UNREACHABLE, cause)
        })??;
        decode(status, &answer)
    }

    async fn send(&self, call: &Call<'_>, body: Bytes) -> Result<(StatusCode, Bytes), ApiError> {
        if call.repeat == Repeat::Harmless
            && let Some(kept) = self.take_idle()
            && let Ok(answer) = self.exchange(kept, call, body.clone()).await
        {
            return Ok(answer);
        }
        let fresh = self.connect().await?;
        self.exchange(fresh, call, body).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let authority = self.url.authority();
        let stream = timeout(CONNECT_TIMEOUT, async {
            let tcp = TcpStream::connect(self.url.address()).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&self.tls)).connect(tls::server_name(), tcp).await
        });
        let stream = stream
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| connection(&authority, &error))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        tokio::spawn(async move {
            // The request that went over it tells its error; an idle connection may end when it
            // likes.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        call: &Call<'_>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let request = Request::builder()
            .method(call.method.clone())
            .uri(call.path)
            .header(header::HOST, self.url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| {
                ApiError::new(&codes::BAD_REQUEST, format!("{}: {error}", call.path))
            })?;
        sender.ready().await.map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        let answer = self.collect(response).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
        Ok((status, answer))
    }

    async fn collect(&self, response: Response<hyper::body::Incoming>) -> Result<Bytes, ApiError> {
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            if let Ok(data) = frame.into_data() {
                if answer.len() + data.len() > ANSWER_BYTES_MAX {
                    let cause = format!("an answer of more than {ANSWER_BYTES_MAX} bytes");
                    return Err(ApiError::new(&codes::INTERNAL, cause));
                }
                answer.extend_from_slice(&data);
            }
        }
        Ok(answer.freeze())
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// A connection that broke. A server that dislikes our certificate says so only after the
    /// handshake, so the cause is looked for in the whole chain.
    fn broken(&self, error: &hyper::Error) -> ApiError {
        let cause = format!("connection to {} broke: {}", self.url.authority(), chain(error));
        ApiError::new(&codes::SERVER_UNREACHABLE, cause)
    }
}

fn decode<R: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<R, ApiError> {
    if status.is_success() {
        // `null` for an empty body: answers without content decode into `()`.
        let answer = if answer.is_empty() { b"null" } else { answer };
        return serde_json::from_slice(answer).map_err(|error| {
            ApiError::new(&codes::INTERNAL, format!("the answer is not understood: {error}"))
                .cure("check the versions of client and configuration server")
        });
    }
    Err(serde_json::from_slice(answer).unwrap_or_else(|_| {
        ApiError::new(&codes::INTERNAL, format!("the server answered {status} without saying why"))
    }))
}
