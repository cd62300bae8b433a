//! Accepts clients, as many as there are places for.

use super::serve::{Terms, serve};
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

/// What is listened on.
pub(super) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A client's connection.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
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
        let terms = Terms { tls: tls.clone(), negotiating: Some(negotiating) };
        tokio::spawn(async move {
            let outcome = serve_stream(&server, terms, stream).await;
            drop(place);
            report(outcome);
        });
    }
}

async fn serve_stream(
    server: &Server,
    terms: Terms,
    stream: Stream,
) -> Result<SessionEnd, SessionError> {
    match stream {
        Stream::Unix(stream) => {
            let (reader, writer) = stream.into_split();
            serve(&server.shared, terms, reader, writer).await
        }
        Stream::Tcp(stream) => {
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
