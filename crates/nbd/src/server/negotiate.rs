use super::{SessionError, Shared};
use crate::handshake::{Effect, Handshake, Input, Needs, Negotiated, Unavailable};
use crate::proto::Facts;
use crate::proto::limits::OPTION_BYTES_MAX;
use crate::{Export, ExportError};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An export with what was said of it.
pub(super) struct Opened {
    pub(super) export: Arc<dyn Export>,
    pub(super) facts: Facts,
}

/// What a client and the server agreed on.
pub(super) enum Outcome {
    Transmit(Negotiated, Opened),
    /// Begin TLS, and go on with the machine within it.
    StartTls(Handshake),
    /// The client went without choosing.
    Left,
}

/// Greets a client that has just come.
pub(super) async fn greet(writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), SessionError> {
    writer.write_all(&Handshake::greeting()).await.map_err(SessionError::Stream)
}

/// Carries a negotiation out on a stream, from where the machine stands. The caller limits its
/// time. Never reads a byte further than it has to: what follows may belong to TLS.
pub(super) async fn negotiate(
    shared: &Shared,
    machine: Handshake,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Outcome, SessionError> {
    let mut dialogue = Dialogue { shared, machine, opened: None, effects: Vec::new() };
    let mut buffer = vec![0; OPTION_BYTES_MAX];
    loop {
        let wanted = match dialogue.machine.needs() {
            Needs::Bytes(count) => count,
            Needs::Skip(left) => buffer.len().min(left as usize),
            Needs::Answer | Needs::Nothing => return Ok(Outcome::Left),
        };
        let piece = &mut buffer[..wanted];
        match reader.read_exact(piece).await {
            Ok(_) => {}
            // A client may go at any time before it has chosen; many only look.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(Outcome::Left);
            }
            Err(error) => return Err(SessionError::Stream(error)),
        }
        match dialogue.step(Input::Received(piece), writer).await? {
            None => {}
            Some(Turn::StartTls) => return Ok(Outcome::StartTls(dialogue.machine)),
            Some(Turn::Outcome(outcome)) => return Ok(outcome),
        }
    }
}

/// Where a step leads out of the dialogue.
enum Turn {
    StartTls,
    Outcome(Outcome),
}

struct Dialogue<'a> {
    shared: &'a Shared,
    machine: Handshake,
    /// The export that was opened last: what INFO said must still hold for GO.
    opened: Option<(String, Opened)>,
    effects: Vec<Effect>,
}

impl Dialogue<'_> {
    /// Hands an input to the machine and carries out all that follows from it.
    async fn step(
        &mut self,
        input: Input<'_>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Option<Turn>, SessionError> {
        self.machine.handle(input, &mut self.effects).map_err(SessionError::Protocol)?;
        loop {
            let mut answer = None;
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Send(bytes) => {
                        writer.write_all(&bytes).await.map_err(SessionError::Stream)?;
                    }
                    Effect::List => {
                        answer = Some(Input::Listed(self.shared.exports.list().await));
                    }
                    Effect::Open(name) => answer = Some(Input::Opened(self.open(name).await)),
                    Effect::StartTls => {
                        writer.flush().await.map_err(SessionError::Stream)?;
                        return Ok(Some(Turn::StartTls));
                    }
                    Effect::Close => {
                        return Ok(Some(Turn::Outcome(Outcome::Left)));
                    }
                    Effect::Transmit(negotiated) => return Ok(self.transmit(negotiated)),
                }
            }
            writer.flush().await.map_err(SessionError::Stream)?;
            let Some(input) = answer else { return Ok(None) };
            self.machine.handle(input, &mut self.effects).map_err(SessionError::Protocol)?;
        }
    }

    fn transmit(&mut self, negotiated: Negotiated) -> Option<Turn> {
        // The machine transmits only after an opening that succeeded, and that is kept.
        let (_, opened) = self.opened.take()?;
        Some(Turn::Outcome(Outcome::Transmit(negotiated, opened)))
    }

    async fn open(&mut self, name: String) -> Result<Facts, Unavailable> {
        if let Some((last, opened)) = &self.opened
            && *last == name
            && !opened.export.revoked()
        {
            return Ok(opened.facts);
        }
        self.opened = None;
        let export = match self.shared.exports.open(&name).await {
            Ok(export) if export.revoked() => return Err(Unavailable::Shutdown),
            Ok(export) => export,
            Err(ExportError::Unknown(_)) => {
                return Err(Unavailable::Unknown("no export has this name".into()));
            }
            Err(ExportError::Absent { why, .. }) => return Err(Unavailable::Unknown(chain(&*why))),
            Err(ExportError::Revoked) => return Err(Unavailable::Shutdown),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(export = name, error, "an export could not be opened");
                return Err(Unavailable::Unknown("the export can't be opened now".into()));
            }
        };
        match Facts::of(export.as_ref()) {
            Ok(facts) => {
                self.opened = Some((name, Opened { export, facts }));
                Ok(facts)
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(export = name, error, "an export can't be served");
                Err(Unavailable::Unknown("the export can't be expressed in NBD".into()))
            }
        }
    }
}

/// An error and its causes, for the client.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
