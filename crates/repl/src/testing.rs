//! Builders for this crate's tests.

use crate::{Batch, ReceiverPosition, SourceIdentity};
use bytes::Bytes;
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, Record, ReplicaId,
};

pub(crate) fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

pub(crate) fn identity() -> SourceIdentity {
    SourceIdentity {
        replica: ReplicaId::from_bytes([1; 16]),
        lineage: Lineage::root(epoch()),
        incarnation: Incarnation::new(1),
        instance: InstanceId::from_bytes([1; 16]),
    }
}

/// Record `lsn` with its position as content.
pub(crate) fn record(lsn: u64) -> Record {
    let content = Bytes::copy_from_slice(&lsn.to_le_bytes());
    Record::write(Lsn::new(lsn), DiskIndex(0), lsn * 512, content)
}

pub(crate) fn chain(through: u64) -> Chain {
    (1..=through).fold(Chain::ROOT, |chain, lsn| record(lsn).chain(chain))
}

pub(crate) fn batch(from: u64, through: u64) -> Batch {
    Batch {
        epoch: epoch(),
        incarnation: Incarnation::new(1),
        chain_before: chain(from - 1),
        source_position: through * 10,
        records: (from..=through).map(record).collect(),
    }
}

pub(crate) fn position(durable: u64) -> ReceiverPosition {
    ReceiverPosition {
        lineage: identity().lineage,
        incarnation: Incarnation::new(1),
        durable: Lsn::new(durable),
        chain: chain(durable),
        source_position: durable * 10,
        durable_at_target: Lsn::new(durable.min(2)),
        image_copy: None,
        open_windows: vec![],
        rotten: vec![],
    }
}
