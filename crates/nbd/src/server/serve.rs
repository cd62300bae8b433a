//! From a client's first byte to its first request: negotiation, with TLS where it is required.

use super::negotiate::{Outcome, greet, negotiate};
use super::session::{Lane, Session};
use super::{SessionEnd, SessionError, Shared};
use crate::handshake::{Handshake, Protection};
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

/// What a client meets on its stream.
#[derive(Default)]
pub(super) struct Terms {
    /// TLS is required, with this configuration.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// A place among those who negotiate, given back when the client has chosen an export.
    pub(super) negotiating: Option<OwnedSemaphorePermit>,
    /// Whether the client has a thread of its own.
    pub(super) lane: Lane,
}

/// Serves one client from its first byte to its last.
pub(super) async fn serve<R, W>(
    shared: &Shared,
    terms: Terms,
    mut reader: R,
    mut writer: W,
) -> Result<SessionEnd, SessionError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let Terms { tls, negotiating, lane } = terms;
    let until = Instant::now() + shared.options.negotiation_time_max;
    let protection = if tls.is_some() { Protection::Required } else { Protection::NotOffered };
    let choosing = async {
        greet(&mut writer).await?;
        negotiate(shared, Handshake::new(protection), &mut reader, &mut writer).await
    };
    let machine = match (in_time(shared, until, choosing).await?, &tls) {
        (None, _) => return Ok(SessionEnd::Disconnected),
        (Some(Outcome::StartTls(machine)), Some(_)) => machine,
        (Some(outcome), _) => {
            drop(negotiating);
            return transmit(shared, lane, outcome, reader, writer).await;
        }
    };
    let Some(tls) = tls else { return Ok(SessionEnd::ClientLeft) };
    // Nothing was read beyond STARTTLS, so that nothing sent in the clear behind it is taken for
    // something said within TLS.
    let accepting = TlsAcceptor::from(tls).accept(tokio::io::join(reader, writer));
    let choosing = async {
        let stream = accepting.await.map_err(SessionError::Tls)?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let outcome = negotiate(shared, machine, &mut reader, &mut writer).await?;
        Ok((outcome, reader, writer))
    };
    // On the heap: the state of TLS is large, and most connections have none.
    let Some((outcome, reader, writer)) = in_time(shared, until, Box::pin(choosing)).await? else {
        return Ok(SessionEnd::Disconnected);
    };
    drop(negotiating);
    Box::pin(transmit(shared, lane, outcome, reader, writer)).await
}

/// What `negotiating` comes to; none when the server takes no more clients.
async fn in_time<T>(
    shared: &Shared,
    until: Instant,
    negotiating: impl Future<Output = Result<T, SessionError>>,
) -> Result<Option<T>, SessionError> {
    let mut closing = shared.registry.closing();
    let limit = shared.options.negotiation_time_max;
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => Ok(None),
        outcome = timeout_at(until, negotiating) => match outcome {
            Ok(outcome) => outcome.map(Some),
            Err(_) => Err(SessionError::NegotiationTime(limit)),
        },
    }
}

async fn transmit<R, W>(
    shared: &Shared,
    lane: Lane,
    outcome: Outcome,
    reader: R,
    writer: W,
) -> Result<SessionEnd, SessionError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (negotiated, opened) = match outcome {
        Outcome::Transmit(negotiated, opened) => (negotiated, opened),
        // TLS within TLS is refused by the negotiation.
        Outcome::Left | Outcome::StartTls(_) => return Ok(SessionEnd::ClientLeft),
    };
    let closing = shared.registry.closing();
    let registration = shared.registry.enter(&negotiated.name);
    // Looked at only now, after entering: see `Registry::enter`.
    if *closing.borrow() {
        return Ok(SessionEnd::Disconnected);
    }
    let session = Session::new(shared.options, lane, negotiated, opened, reader, writer);
    session.run(registration).await
}
