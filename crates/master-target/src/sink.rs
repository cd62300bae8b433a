//! Where sessions put what they get.

use crate::blocking::blocking;
use crate::errors::{content_refusal, refusal};
use crate::hosted::{Hosted, lock};
use crate::target::Target;
use async_trait::async_trait;
use landfall_repl::{
    Batch, Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, LogSink,
    ReceiverPosition, Refusal, SessionToken, SourceIdentity,
};
use landfall_types::{ByteRange, DiskIndex, Lsn, ReplicaId};
use landfall_volume::{Frame, ImagePiece, IngestError, Standing};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The replicas of a target as a sink.
#[derive(Clone)]
pub struct Sink(Arc<Target>);

impl Sink {
    /// Of this target.
    #[must_use]
    pub const fn new(target: Arc<Target>) -> Self {
        Self(target)
    }

    fn hosted(&self, session: SessionToken) -> Result<Arc<Hosted>, Refusal> {
        self.0.find(session.replica).ok_or_else(|| self.missing(session.replica))
    }

    /// A replica that is here, but can't be opened at present, is not an unknown one: its sender
    /// has to come again.
    fn missing(&self, replica: ReplicaId) -> Refusal {
        match self.0.problem(replica) {
            Some(problem) => Refusal::Unavailable { reason: problem.to_string() },
            None => Refusal::UnknownReplica(replica),
        }
    }
}

#[async_trait]
impl LogSink for Sink {
    async fn open(
        &self,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal> {
        let replica = identity.replica;
        let hosted = self.0.find(replica).ok_or_else(|| self.missing(replica))?;
        let identity = identity.clone();
        let taken = blocking(move || {
            // Under the lock that appends take: when this has it, no batch of the older session is
            // under way.
            let mut sessions = lock(&hosted.sessions);
            let standing = hosted.replica.greet(&identity.lineage, identity.instance);
            let standing = standing.map_err(|error| refusal(&error))?;
            sessions.newest += 1;
            sessions.connected = true;
            sessions.asked = crate::rot::to_ask(&hosted.replica);
            hosted.received.send_replace(standing.durable.lsn);
            hosted.durable.send_replace(standing.durable.lsn);
            Ok((sessions.newest, position(standing, sessions.asked.clone())))
        });
        let (serial, position) = taken.await?;
        Ok((SessionToken { replica, serial }, position))
    }

    async fn append(&self, session: SessionToken, batch: Batch) -> Result<(), Refusal> {
        let hosted = self.hosted(session)?;
        if self.0.ingest_stopped.load(Ordering::Relaxed) {
            // Nothing that was acknowledged is lost, and the sender tries again by itself.
            let reason = "the retention volume has no more room: a machine runs from it (T-21)";
            return Err(Refusal::Unavailable { reason: reason.to_owned() });
        }
        blocking(move || {
            let _newest = hosted.session(session.serial)?;
            let frame = Frame {
                epoch: batch.epoch,
                incarnation: batch.incarnation,
                source_position: batch.source_position,
                chain_before: batch.chain_before,
                records: &batch.records,
            };
            let taken = hosted.replica.ingest(frame);
            match &taken {
                Ok(_) => hosted.note(Ok(())),
                Err(IngestError::Storage(error)) => hosted.note(Err(error)),
                Err(_) => {}
            }
            let tail = taken.map_err(|error| refusal(&error))?;
            hosted.received.send_replace(tail.lsn);
            Ok(())
        })
        .await
    }

    async fn flush(&self, session: SessionToken) -> Result<Durable, Refusal> {
        let hosted = self.hosted(session)?;
        blocking(move || {
            drop(hosted.session(session.serial)?);
            let flushed = hosted.replica.flush();
            if let Err(error) = &flushed {
                hosted.note(Err(error));
            }
            let durable = flushed.map_err(|error| refusal(&error.into()))?;
            hosted.durable.send_if_modified(|known| {
                let rises = durable.lsn > *known;
                *known = durable.lsn.max(*known);
                rises
            });
            Ok(here(durable.lsn))
        })
        .await
    }

    async fn durable_beyond(
        &self,
        session: SessionToken,
        seen: Durable,
    ) -> Result<Durable, Refusal> {
        let hosted = self.hosted(session)?;
        let mut durable = hosted.durable.subscribe();
        loop {
            let known = *durable.borrow_and_update();
            drop(hosted.session(session.serial)?);
            if known > seen.at_target {
                return Ok(here(known));
            }
            let changed = durable.changed().await;
            changed.map_err(|_| Refusal::UnknownReplica(session.replica))?;
        }
    }

    async fn image(&self, session: SessionToken, piece: ImageData) -> Result<(), Refusal> {
        let hosted = self.hosted(session)?;
        let number = {
            // Fair: pieces are written in the order in which their calls came here.
            let mut order = hosted.image_order.lock().await;
            write_piece(&hosted, session, piece).await?;
            *order += 1;
            *order
        };
        let mut durable = hosted.image_durable.lock().await;
        if *durable < number {
            // Everything that was written by now shares this flush.
            let written = *hosted.image_order.lock().await;
            let flushed = hosted.with(landfall_volume::Replica::image_flush).await;
            flushed.map_err(|error| refusal(&error.into()))?;
            *durable = written;
        }
        Ok(())
    }

    async fn hash(
        &self,
        session: SessionToken,
        request: HashRequest,
    ) -> Result<HashReply, Refusal> {
        let hosted = self.hosted(session)?;
        let mut received = hosted.received.subscribe();
        let reached = received.wait_for(|received| *received >= request.after).await;
        reached.map_err(|_| Refusal::UnknownReplica(session.replica))?;
        let range = ByteRange::at(request.offset, request.length);
        let range =
            range.ok_or_else(|| Refusal::Protocol { detail: "a range past any disk".into() })?;
        let hash = move |replica: &landfall_volume::Replica| {
            replica.hash(request.disk, range, request.block_bytes, request.after)
        };
        let hashes = hosted.with(hash).await.map_err(|error| content_refusal(&error))?;
        Ok(HashReply { hashes })
    }

    async fn close(&self, session: SessionToken) {
        let Some(hosted) = self.0.find(session.replica) else { return };
        if let Ok(mut sessions) = hosted.session(session.serial) {
            sessions.connected = false;
        }
    }
}

async fn write_piece(
    hosted: &Arc<Hosted>,
    session: SessionToken,
    piece: ImageData,
) -> Result<(), Refusal> {
    let hosted = Arc::clone(hosted);
    blocking(move || {
        drop(hosted.session(session.serial)?);
        let piece = ImagePiece {
            window: piece.window,
            disk: piece.disk,
            offset: piece.offset,
            length: piece.length,
            data: piece.data.as_deref(),
        };
        hosted.replica.image_write(piece).map_err(|error| refusal(&error))
    })
    .await
}

const fn here(lsn: Lsn) -> Durable {
    Durable { here: lsn, at_target: lsn }
}

fn position(standing: Standing, rotten: Vec<(DiskIndex, ByteRange)>) -> ReceiverPosition {
    let durable = standing.durable;
    let copy = |copy: landfall_volume::ImageCopy| ImageCopyPosition {
        window: copy.window,
        durable_bytes: copy.durable_bytes,
    };
    ReceiverPosition {
        lineage: standing.lineage,
        incarnation: durable.incarnation,
        durable: durable.lsn,
        chain: durable.chain,
        source_position: durable.source_position,
        durable_at_target: durable.lsn,
        image_copy: standing.image_copy.map(copy),
        open_windows: standing.open_windows,
        rotten,
    }
}
