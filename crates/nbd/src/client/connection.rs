use super::reply::{Answer, Assembly, Failure};
use super::{ClientError, REQUESTS_IN_FLIGHT_MAX};
use crate::proto::{Command, Errno, ReplyHeader, Request, Violation};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// What a request wants to hear on success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    Data { offset: u64, length: u32, structured: bool },
    Status,
}

/// The two halves of a connection, each with a task of its own, and who waits for which answer.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Outgoing>,
    waiting: Arc<Waiting>,
    places: Semaphore,
    cookie: AtomicU64,
    receiving: JoinHandle<()>,
}

#[derive(Debug)]
struct Outgoing {
    request: Request,
    payload: Bytes,
}

type Outcome = Result<Answer, Failure>;

/// Requests without an answer; `None` once no answer can come any more.
#[derive(Debug)]
struct Waiting(Mutex<Option<BTreeMap<u64, Pending>>>);

#[derive(Debug)]
struct Pending {
    assembly: Assembly,
    answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Pending>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(super) fn start<R, W>(reader: R, writer: W) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (outgoing, requests) = mpsc::channel(REQUESTS_IN_FLIGHT_MAX);
        let waiting = Arc::new(Waiting(Mutex::new(Some(BTreeMap::new()))));
        tokio::spawn(send(requests, writer));
        let receiving = tokio::spawn(receive(BufReader::new(reader), Arc::clone(&waiting)));
        Self {
            outgoing,
            waiting,
            places: Semaphore::new(REQUESTS_IN_FLIGHT_MAX),
            cookie: AtomicU64::new(1),
            receiving,
        }
    }

    /// Sends a request and waits for its answer. A call that is dropped leaves its request in
    /// flight.
    pub(super) async fn call(
        &self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u32,
        payload: Bytes,
        wanted: Wanted,
    ) -> Result<Answer, ClientError> {
        let _place = self.places.acquire().await.map_err(|_| ClientError::Closed)?;
        let cookie = self.cookie.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let pending = Pending { assembly: Assembly::new(wanted), answer };
        self.waiting.lock().as_mut().ok_or(ClientError::Closed)?.insert(cookie, pending);
        let request = Request { flags, command, cookie, offset, length };
        let sent = self.outgoing.send(Outgoing { request, payload }).await;
        sent.map_err(|_| ClientError::Closed)?;
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure { errno, message })) => Err(ClientError::Failed { errno, message }),
            Err(_) => Err(ClientError::Closed),
        }
    }

    pub(super) async fn close(self) {
        // The sender's end makes the sending task say goodbye.
        drop(self.outgoing);
        // The task ends with the stream; a panic in it would have been reported by the runtime.
        let _ = self.receiving.await;
    }
}

/// Sends requests until there is nobody left who could make one, then takes leave.
async fn send(mut requests: mpsc::Receiver<Outgoing>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(Outgoing { request, payload }) = requests.recv().await {
        if put(&mut writer, &request, payload).await.is_err() {
            // The receiving task sees the broken stream as well and tells whoever waits.
            return;
        }
    }
    let farewell =
        Request { flags: 0, command: Command::Disconnect, cookie: 0, offset: 0, length: 0 };
    // Nobody is left to be told of a failure.
    let _ = put(&mut writer, &farewell, Bytes::new()).await;
    let _ = writer.shutdown().await;
}

async fn put(
    writer: &mut (impl AsyncWrite + Unpin),
    request: &Request,
    payload: Bytes,
) -> io::Result<()> {
    let mut head = BytesMut::with_capacity(Request::BYTES);
    request.encode(&mut head);
    writer.write_all_buf(&mut head.chain(payload)).await?;
    writer.flush().await
}

/// Hands out answers until the stream ends or the server talks nonsense.
async fn receive(mut reader: impl AsyncRead + Unpin, waiting: Arc<Waiting>) {
    while let Ok(()) = take_answer(&mut reader, &waiting).await {}
    // Whoever still waits is told by the end of its channel; whoever comes later finds nothing to
    // wait in.
    waiting.lock().take();
}

/// Why no more answers are taken; told to callers as "closed", because which request was hit is not
/// known.
#[derive(Debug)]
enum Broken {
    Stream,
    Protocol,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Stream
    }
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        let error: &(dyn std::error::Error + 'static) = &violation;
        tracing::warn!(error, "an NBD server broke the protocol");
        Self::Protocol
    }
}

async fn take_answer(
    reader: &mut (impl AsyncRead + Unpin),
    waiting: &Waiting,
) -> Result<(), Broken> {
    let mut header = [0; ReplyHeader::CHUNK_BYTES];
    reader.read_exact(&mut header[..4]).await?;
    let magic = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let bytes = ReplyHeader::bytes(magic)?;
    reader.read_exact(&mut header[4..bytes]).await?;
    match ReplyHeader::decode(&header[..bytes])? {
        ReplyHeader::Simple { error, cookie } => simple(reader, waiting, error, cookie).await,
        ReplyHeader::Chunk { done, kind, cookie, length } => {
            wanted(waiting, cookie)?;
            let payload = payload(reader, length).await?;
            let finished = {
                let mut pending = waiting.lock();
                let pending = pending.as_mut().ok_or(Broken::Protocol)?;
                let entry = pending.get_mut(&cookie).ok_or(Violation::Cookie(cookie))?;
                entry.assembly.add(kind, payload)?;
                if done { pending.remove(&cookie) } else { None }
            };
            if let Some(Pending { assembly, answer }) = finished {
                // Whoever gave up waiting needs no answer.
                let _ = answer.send(assembly.finish()?);
            }
            Ok(())
        }
    }
}

async fn simple(
    reader: &mut (impl AsyncRead + Unpin),
    waiting: &Waiting,
    error: u32,
    cookie: u64,
) -> Result<(), Broken> {
    let outcome = match (error, wanted(waiting, cookie)?) {
        (0, Wanted::Nothing) => Ok(Answer::default()),
        (0, Wanted::Data { length, structured: false, .. }) => {
            Ok(Answer { data: payload(reader, length).await?, ..Answer::default() })
        }
        (0, _) => return Err(Violation::Malformed("simple reply to a structured request").into()),
        (code, _) => Err(Failure { errno: Errno::from_code(code), message: String::new() }),
    };
    let pending = waiting.lock().as_mut().and_then(|pending| pending.remove(&cookie));
    if let Some(pending) = pending {
        // Whoever gave up waiting needs no answer.
        let _ = pending.answer.send(outcome);
    }
    Ok(())
}

fn wanted(waiting: &Waiting, cookie: u64) -> Result<Wanted, Violation> {
    let pending = waiting.lock();
    let entry = pending.as_ref().and_then(|pending| pending.get(&cookie));
    entry.map(|pending| pending.assembly.wanted()).ok_or(Violation::Cookie(cookie))
}

/// Reads a payload whose length was checked; memory is taken as it arrives.
async fn payload(reader: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Bytes> {
    let length = length as usize;
    let mut data = BytesMut::with_capacity(length);
    while data.len() < length {
        let missing = length - data.len();
        let mut limited = bytes::BufMut::limit(&mut data, missing);
        if reader.read_buf(&mut limited).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(data.freeze())
}
