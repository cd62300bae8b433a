//! Who may send to a replica: the comparison of histories that comes before any position is looked
//! at.

use crate::{Batch, Refusal, SourceIdentity};
use landfall_types::{Epoch, InstanceId, Lineage, Lsn};

/// What a receiver knows when a sender announces itself.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The durable history of the replica or spool.
    pub lineage: &'a Lineage,
    /// Its last record.
    pub tail: Lsn,
    /// The instance that authority was granted to; `None` where this hop was not told (the next hop
    /// checks).
    pub instance: Option<InstanceId>,
}

/// How an admitted sender's history relates to the receiver's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The same epochs.
    Same,
    /// The sender has newer epochs that stand on what the receiver holds. The receiver makes the
    /// new lineage durable *before* it answers, or refuses: were it to answer first, a crash would
    /// let the old epoch in again.
    Newer,
}

/// Compares a sender with what the receiver holds: instance (trap T-11), then lineage, then nothing
/// else.
///
/// # Errors
/// * [`Refusal::OtherInstance`]: a clone or a recovered machine that thinks it is the source;
/// * [`Refusal::Fenced`]: the sender's epochs are the beginning of the receiver's, its time is over
///   (design section 5.4);
/// * [`Refusal::Diverged`]: the histories have parted, or the receiver holds records of an epoch
///   that the sender's newer one left behind.
pub fn admit(identity: &SourceIdentity, standing: &Standing<'_>) -> Result<Admission, Refusal> {
    if standing.instance.is_some_and(|granted| granted != identity.instance) {
        return Err(Refusal::OtherInstance(identity.instance));
    }
    let (theirs, ours) = (&identity.lineage, standing.lineage);
    if theirs == ours {
        return Ok(Admission::Same);
    }
    if theirs.is_prefix_of(ours) {
        return Err(Refusal::Fenced { offered: theirs.epoch(), current: ours.epoch() });
    }
    let common = theirs.common_through(ours).unwrap_or(Lsn::ZERO);
    if ours.is_prefix_of(theirs) && standing.tail <= common {
        return Ok(Admission::Newer);
    }
    Err(Refusal::Diverged { common, durable: standing.tail })
}

/// Checks that a batch belongs to the history that its sender announced: its epoch must be the one
/// that the lineage has at these positions.
///
/// # Errors [`Refusal::Fenced`] for an epoch that was over at these positions,
/// [`Refusal::Diverged`] for one that is not in the lineage or had not begun.
pub fn check_epoch(lineage: &Lineage, batch: &Batch) -> Result<(), Refusal> {
    let (first, last) = (batch.first(), batch.last());
    let due = epoch_at(lineage, first);
    if due.is(&batch.epoch) && epoch_at(lineage, last).is(&batch.epoch) {
        return Ok(());
    }
    if batch.epoch.number < epoch_at(lineage, last).number {
        return Err(Refusal::Fenced { offered: batch.epoch, current: epoch_at(lineage, last) });
    }
    Err(Refusal::Diverged { common: first.prev(), durable: first.prev() })
}

/// The epoch in which the record at `lsn` was written, by this lineage.
#[must_use]
pub fn epoch_at(lineage: &Lineage, lsn: Lsn) -> Epoch {
    let began = |fork: Lsn| fork < lsn;
    let entries = lineage.entries();
    entries.iter().rev().find(|entry| began(entry.fork)).unwrap_or(&entries[0]).epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use landfall_types::{Chain, DiskIndex, EpochId, Incarnation, Record, ReplicaId};

    fn epoch(number: u64, parent: Option<u64>) -> Epoch {
        Epoch { number, id: EpochId::new(number * 100), parent: parent.map(EpochId::new) }
    }
    fn one() -> Lineage {
        Lineage::root(epoch(1, None))
    }
    fn two_at(fork: u64) -> Lineage {
        one().extend(epoch(2, Some(100)), Lsn::new(fork)).expect("rises")
    }
    fn instance(byte: u8) -> InstanceId {
        InstanceId::from_bytes([byte; 16])
    }
    fn from(lineage: Lineage) -> SourceIdentity {
        SourceIdentity {
            replica: ReplicaId::from_bytes([1; 16]),
            lineage,
            incarnation: Incarnation::new(1),
            instance: instance(1),
        }
    }
    fn ask(theirs: Lineage, ours: &Lineage, tail: u64) -> Result<Admission, Refusal> {
        let standing =
            Standing { lineage: ours, tail: Lsn::new(tail), instance: Some(instance(1)) };
        admit(&from(theirs), &standing)
    }

    /// Guards P6: every relation of two histories has its answer.
    #[test]
    fn each_relation_of_histories_has_its_answer() {
        assert_eq!(ask(one(), &one(), 80), Ok(Admission::Same));
        assert_eq!(ask(two_at(50), &one(), 50), Ok(Admission::Newer));
        assert_eq!(ask(two_at(50), &one(), 10), Ok(Admission::Newer));
        let (common, durable) = (Lsn::new(50), Lsn::new(80));
        assert_eq!(ask(two_at(50), &one(), 80), Err(Refusal::Diverged { common, durable }));
        let (offered, current) = (epoch(1, None), epoch(2, Some(100)));
        assert_eq!(ask(one(), &two_at(50), 50), Err(Refusal::Fenced { offered, current }));
        assert_eq!(ask(one(), &two_at(50), 0), Err(Refusal::Fenced { offered, current }));
        let sibling = ask(two_at(40), &two_at(50), 60);
        assert_eq!(sibling, Err(Refusal::Diverged { common: Lsn::new(40), durable: Lsn::new(60) }));
        let stranger = Lineage::root(epoch(9, None));
        let nothing = Refusal::Diverged { common: Lsn::ZERO, durable: Lsn::new(60) };
        assert_eq!(ask(stranger, &two_at(50), 60), Err(nothing));
    }

    /// Guards P6. T-17: the same number with another random ID is another epoch.
    #[test]
    fn t17_equal_numbers_with_different_ids_differ() {
        let other = Lineage::root(Epoch { number: 1, id: EpochId::new(7), parent: None });
        assert!(matches!(ask(other, &one(), 5), Err(Refusal::Diverged { .. })));
    }

    /// Guards P6. T-11: the recovered machine or a clone with the same epochs is not the granted
    /// instance.
    #[test]
    fn t11_another_instance_is_refused_before_anything_else() {
        let standing = Standing { lineage: &one(), tail: Lsn::ZERO, instance: Some(instance(2)) };
        assert_eq!(admit(&from(one()), &standing), Err(Refusal::OtherInstance(instance(1))));
        let unknown = Standing { instance: None, ..standing };
        assert_eq!(admit(&from(one()), &unknown), Ok(Admission::Same));
    }

    #[test]
    fn a_batch_must_be_of_the_epoch_that_the_lineage_has_there() {
        let batch = |epoch: Epoch, from: u64, count: u64| Batch {
            epoch,
            incarnation: Incarnation::new(1),
            chain_before: Chain::ROOT,
            source_position: 0,
            records: (from..from + count)
                .map(|lsn| Record::write(Lsn::new(lsn), DiskIndex(0), 0, Bytes::from_static(b"x")))
                .collect(),
        };
        let (old, new) = (epoch(1, None), epoch(2, Some(100)));
        assert_eq!(check_epoch(&two_at(50), &batch(old, 49, 2)), Ok(()));
        assert_eq!(check_epoch(&two_at(50), &batch(new, 51, 2)), Ok(()));
        let fenced = Refusal::Fenced { offered: old, current: new };
        assert_eq!(check_epoch(&two_at(50), &batch(old, 51, 1)), Err(fenced.clone()));
        assert_eq!(check_epoch(&two_at(50), &batch(old, 50, 2)), Err(fenced), "straddles the fork");
        let early = check_epoch(&two_at(50), &batch(new, 50, 1));
        assert!(matches!(early, Err(Refusal::Diverged { .. })));
        let unknown = check_epoch(&one(), &batch(new, 51, 1));
        assert!(matches!(unknown, Err(Refusal::Diverged { .. })));
    }
}
