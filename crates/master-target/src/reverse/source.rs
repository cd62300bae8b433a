//! The branch's log as a source of records.

use super::ReverseSpec;
use crate::blocking::blocking;
use crate::errors;
use crate::hosted::Hosted;
use async_trait::async_trait;
use landfall_journal::{JournalError, Log};
use landfall_repl::{Batch, Durable, LogSource, ReceiverPosition, Refusal, SourceIdentity};
use landfall_types::{ByteRange, DiskIndex, Lineage, Lsn};
use landfall_volume::{Branch, Replica, branch_incarnation};
use std::sync::Arc;
use tokio::sync::watch;

/// The durable records of a branch.
pub(crate) struct BranchSource {
    identity: SourceIdentity,
    log: Arc<Log>,
    replica: Arc<Replica>,
    durable: watch::Receiver<Lsn>,
    at_target: watch::Sender<Lsn>,
    /// What home has asked for again, and how far it was then.
    asked: watch::Sender<Asked>,
}

/// Ranges that home can't read any more (trap T-20), when it had the log up to `at_target`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) ranges: Vec<(DiskIndex, ByteRange)>,
    pub(crate) at_target: Lsn,
}

impl BranchSource {
    pub(crate) fn new(
        hosted: &Hosted,
        branch: &Branch,
        spec: &ReverseSpec,
        lineage: Lineage,
    ) -> Self {
        let log = branch.log();
        let (risen, durable) = watch::channel(log.durable().lsn);
        log.on_durable(Box::new(move |position| {
            risen.send_if_modified(|known| std::mem::replace(known, position.lsn) != position.lsn);
        }));
        Self {
            identity: SourceIdentity {
                replica: spec.to,
                lineage,
                incarnation: branch_incarnation(branch.entry().log),
                instance: spec.instance,
            },
            log,
            replica: Arc::clone(&hosted.replica),
            durable,
            at_target: watch::Sender::new(Lsn::ZERO),
            asked: watch::Sender::default(),
        }
    }

    /// Changes with every session.
    pub(crate) fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }

    /// What is durable at home.
    pub(crate) fn durable_at_target(&self) -> Lsn {
        *self.at_target.borrow()
    }
}

#[async_trait]
impl LogSource for BranchSource {
    fn identity(&self) -> SourceIdentity {
        self.identity.clone()
    }

    /// The log proves its continuity by itself: wherever the receiver stands, its chain must be
    /// ours there.
    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        if position.lineage != self.identity.lineage {
            let common = position.lineage.common_through(&self.identity.lineage);
            let common = common.unwrap_or(Lsn::ZERO).min(position.durable);
            return Err(Refusal::Diverged { common, durable: position.durable });
        }
        let (log, lsn) = (Arc::clone(&self.log), position.durable);
        // Only what is durable here counts: a receiver ahead of its sender is another history (trap
        // T-1).
        let known = blocking(move || {
            let known = log.position_at(lsn)?;
            Ok::<_, JournalError>(known.filter(|_| lsn <= log.durable().lsn))
        });
        let known =
            known.await.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?;
        if known.is_none_or(|known| known.chain != position.chain) {
            return Err(Refusal::ChainMismatch { lsn });
        }
        self.asked.send_replace(Asked {
            ranges: position.rotten.clone(),
            at_target: position.durable_at_target,
        });
        self.acknowledged(Durable {
            here: position.durable,
            at_target: position.durable_at_target,
        });
        Ok(())
    }

    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
        let mut durable = self.durable.clone();
        loop {
            let gone = durable.wait_for(|durable| *durable >= from).await.is_err();
            if gone {
                return Err(Refusal::Unavailable { reason: "the branch's log was closed".into() });
            }
            let log = Arc::clone(&self.log);
            let batch = blocking(move || log.batch(from, bytes_max)).await;
            let batch = batch.map_err(|error| unavailable(&error))?;
            if let Some(batch) = batch {
                return Ok(Batch {
                    epoch: batch.stamp.epoch,
                    incarnation: batch.stamp.incarnation,
                    chain_before: batch.chain_before,
                    source_position: batch.stamp.source_position,
                    records: batch.records,
                });
            }
            if durable.changed().await.is_err() {
                return Err(Refusal::Unavailable { reason: "the branch's log was closed".into() });
            }
        }
    }

    fn acknowledged(&self, durable: Durable) {
        self.at_target.send_if_modified(|known| {
            let rises = durable.at_target > *known;
            *known = durable.at_target.max(*known);
            rises
        });
        // A hop forgets a record only when the target has it: a process server may lose its spool.
        self.replica.keep_records_behind(*self.at_target.borrow());
    }
}

fn unavailable(error: &JournalError) -> Refusal {
    Refusal::Unavailable { reason: errors::chain(error) }
}
