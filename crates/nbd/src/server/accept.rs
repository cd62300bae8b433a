//! Accepts clients, as many as there are places for.

use super::serve::{Terms, serve};
use super::session::Lane;
use super::{Server, SessionEnd, SessionError};
use rustix::net::sockopt;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Pause after a failed accept: out of descriptors, which only time can cure, and must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client on TCP that says nothing for so long is asked whether it is still there …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … so often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and so many times, before its connection counts as broken: two minutes in all. A machine that
/// lost its power says nothing any more, and would keep its place for ever.
const KEEPALIVE_PROBES: u32 = 4;
/// The same limit for answers that nobody acknowledges.
const UNACKNOWLEDGED_MS: u32 = 120_000;

/// Threads that wait for the storage on behalf of one client: more than a disk answers at a time,
/// and few enough that 256 clients can have them.
const STORAGE_THREADS_MAX: usize = 16;

/// What is listened on.
pub(super) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A client's connection, on its way to its thread; not blocking.
enum Accepted {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => listener.accept().await?.0.into_std().map(Accepted::Unix),
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Accepted::Tcp),
        }
    }
}

/// Accepts until the server closes.
pub(super) async fn accept(server: Server, socket: Socket, tls: Option<Arc<ServerConfig>>) {
    let places = Arc::new(Semaphore::new(server.shared.options.connections_max));
    let antechamber = Arc::new(Semaphore::new(server.shared.options.negotiating_max));
    let mut closing = server.shared.registry.closing();
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let negotiating = Arc::clone(&antechamber).try_acquire_owned();
        let (Ok(place), Ok(negotiating)) = (place, negotiating) else {
            // Closed at once: a client that is told can say so, one that hangs can't.
            tracing::warn!("a client was turned away: too many connections");
            continue;
        };
        let server = server.clone();
        let terms = Terms { tls: tls.clone(), negotiating: Some(negotiating), lane: Lane::Own };
        // A thread for each client: what it waits for, nobody else waits for, and a block that lies
        // in memory is answered without another thread being woken for it.
        let client = std::thread::Builder::new().name("nbd client".into()).spawn(move || {
            report(serve_alone(&server, terms, stream));
            drop(place);
        });
        if let Err(error) = client {
            tracing::warn!(%error, "a client was turned away: no thread for it");
        }
    }
}

/// Serves a client on the calling thread.
fn serve_alone(
    server: &Server,
    terms: Terms,
    stream: Accepted,
) -> Result<SessionEnd, SessionError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("nbd storage")
        .max_blocking_threads(STORAGE_THREADS_MAX)
        .build();
    let runtime = runtime.map_err(SessionError::Stream)?;
    runtime.block_on(serve_stream(server, terms, stream))
}

async fn serve_stream(
    server: &Server,
    terms: Terms,
    stream: Accepted,
) -> Result<SessionEnd, SessionError> {
    match stream {
        Accepted::Unix(stream) => {
            let stream = UnixStream::from_std(stream).map_err(SessionError::Stream)?;
            let (reader, writer) = stream.into_split();
            serve(&server.shared, terms, reader, writer).await
        }
        Accepted::Tcp(stream) => {
            let stream = TcpStream::from_std(stream).map_err(SessionError::Stream)?;
            keep_alive(&stream).map_err(SessionError::Stream)?;
            let (reader, writer) = stream.into_split();
            serve(&server.shared, terms, reader, writer).await
        }
    }
}

/// Answers leave at once, and a client that is gone is noticed.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

fn report(outcome: Result<SessionEnd, SessionError>) {
    match outcome {
        Ok(end) => tracing::debug!(?end, "a client's session ended"),
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            // No fault of ours, and nothing to mend here: clients are killed every day.
            tracing::info!(error, "a client's session broke");
        }
    }
}
