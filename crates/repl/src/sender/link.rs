//! One session of a sender: what was sent, what came back, and how much more may go out.

use crate::admission::check_epoch;
use crate::limits::{BATCH_BYTES_MAX, BATCH_BYTES_TARGET};
use crate::message::{Ack, PROTOCOL_HISTORY, PROTOCOL_MAX, PROTOCOL_MIN, Welcome};
use crate::{Batch, Durable, Refusal, SourceIdentity};
use landfall_types::{Chain, Lineage, Lsn};

#[derive(Debug)]
pub(super) struct Link {
    lineage: Lineage,
    sent: Lsn,
    chain: Chain,
    used: u64,
    ack: Ack,
    image_window: u64,
    reading: bool,
}

impl Link {
    /// # Errors
    /// The receiver's answer does not fit the history that we announced.
    pub(super) fn new(
        identity: &SourceIdentity,
        welcome: &Welcome,
        history_bytes: u64,
    ) -> Result<Self, Refusal> {
        let position = &welcome.position;
        let (ours, theirs) = (&identity.lineage, &position.lineage);
        let durable = Durable { here: position.durable, at_target: position.durable_at_target };
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.version) {
            return Err(protocol("the receiver chose a version that was not offered"));
        }
        if welcome.history_bytes > history_bytes
            || (welcome.version < PROTOCOL_HISTORY && welcome.history_bytes > 0)
        {
            return Err(protocol("the receiver would remember more than was offered"));
        }
        if durable.at_target > durable.here {
            return Err(protocol("the receiver claims more durable behind it than it has itself"));
        }
        // The receiver has compared the lineages already; this is the same comparison from our
        // side, so that one defect alone can't mix two histories.
        if ours != theirs {
            let common = ours.common_through(theirs).unwrap_or(Lsn::ZERO);
            if ours.is_prefix_of(theirs) {
                let (offered, current) = (ours.epoch(), theirs.epoch());
                return Err(Refusal::Fenced { offered, current });
            }
            if !theirs.is_prefix_of(ours) || durable.here > common {
                return Err(Refusal::Diverged { common, durable: durable.here });
            }
        }
        Ok(Self {
            lineage: ours.clone(),
            sent: durable.here,
            chain: position.chain,
            used: 0,
            ack: Ack { received: durable.here, durable, credit: welcome.credit },
            image_window: welcome.image_window,
            reading: false,
        })
    }

    pub(super) const fn progress(&self) -> (Lsn, Ack) {
        (self.sent, self.ack)
    }

    pub(super) const fn image_window(&self) -> u64 {
        self.image_window
    }

    /// What to read next, when there is credit and no read is under way; the caller must then read.
    pub(super) fn wants(&mut self) -> Option<(Lsn, usize)> {
        let credit = self.ack.credit.saturating_sub(self.used);
        if self.reading || credit == 0 {
            return None;
        }
        self.reading = true;
        let bytes_max = usize::try_from(credit).unwrap_or(usize::MAX).min(BATCH_BYTES_TARGET);
        Some((self.sent.next(), bytes_max))
    }

    /// Takes note of what the source gave, and gives it back to be sent.
    ///
    /// # Errors
    /// The source gave what does not follow on what was sent: the receiver would refuse it.
    pub(super) fn sent(&mut self, batch: Batch) -> Result<Batch, Refusal> {
        if batch.records.is_empty() || batch.bytes() > BATCH_BYTES_MAX {
            return Err(protocol("the source gave an empty or oversized batch"));
        }
        let expected = self.sent.next();
        if batch.first() != expected {
            return Err(Refusal::Gap { expected, found: batch.first() });
        }
        if batch.chain_before != self.chain {
            return Err(Refusal::ChainMismatch { lsn: self.sent });
        }
        check_epoch(&self.lineage, &batch)?;
        self.reading = false;
        self.used += batch.bytes() as u64;
        self.sent = batch.last();
        self.chain = batch.chain_after();
        Ok(batch)
    }

    /// Takes note of an acknowledgement; `Some` when more is durable than before.
    ///
    /// # Errors
    /// It takes something back, or speaks of what was never sent.
    pub(super) fn acknowledged(&mut self, ack: Ack) -> Result<Option<Durable>, Refusal> {
        let old = self.ack;
        let rises = ack.received >= old.received
            && ack.durable.here >= old.durable.here
            && ack.durable.at_target >= old.durable.at_target
            && ack.credit >= old.credit;
        let ordered = ack.durable.at_target <= ack.durable.here
            && ack.durable.here <= ack.received
            && ack.received <= self.sent;
        if !rises || !ordered {
            return Err(protocol("an acknowledgement that takes back or promises the impossible"));
        }
        self.ack = ack;
        Ok((ack.durable != old.durable).then_some(ack.durable))
    }
}

fn protocol(detail: &str) -> Refusal {
    Refusal::Protocol { detail: detail.into() }
}
