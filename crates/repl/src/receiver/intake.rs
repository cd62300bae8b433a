//! The rule that makes a log exactly-once and in order: accept the next record and nothing else.

use crate::{Batch, Refusal};
use landfall_types::{Chain, Lsn};

/// The last record that arrived, and the chain there.
#[derive(Debug)]
pub(super) struct Intake {
    received: Lsn,
    chain: Chain,
}

/// What to do with a batch.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Begins with exactly the next record (what was there already has been cut off).
    Next(Batch),
    /// Is there already, with the same chain.
    Duplicate,
    /// Lies before what arrived in this session. Only the sink, which holds the log, can tell a
    /// duplicate from another history under the same positions (trap T-1): it drops the one and
    /// refuses the other.
    Older(Batch),
}

impl Intake {
    pub(super) const fn new(received: Lsn, chain: Chain) -> Self {
        Self { received, chain }
    }

    pub(super) const fn received(&self) -> Lsn {
        self.received
    }

    /// # Errors [`Refusal::Gap`] for anything above the next record, [`Refusal::ChainMismatch`] for
    /// another history, [`Refusal::Protocol`] for a batch that is none. Nothing is changed then.
    pub(super) fn accept(&mut self, mut batch: Batch) -> Result<Verdict, Refusal> {
        check_dense(&batch)?;
        let expected = self.received.next();
        if batch.first() > expected {
            return Err(Refusal::Gap { expected, found: batch.first() });
        }
        if batch.last() < self.received {
            return Ok(Verdict::Older(batch));
        }
        // The batch reaches back over `received` by this many records; their chain must end where
        // ours does. Because a chain covers all that came before it, this one comparison covers
        // every duplicate record.
        let behind = usize::try_from(expected.records_since(batch.first())).unwrap_or(usize::MAX);
        let duplicates = batch.records.drain(..behind);
        let there = duplicates.fold(batch.chain_before, |chain, record| record.chain(chain));
        if there != self.chain {
            return Err(Refusal::ChainMismatch { lsn: self.received });
        }
        if batch.records.is_empty() {
            return Ok(Verdict::Duplicate);
        }
        batch.chain_before = there;
        self.chain = batch.chain_after();
        self.received = batch.last();
        Ok(Verdict::Next(batch))
    }
}

fn check_dense(batch: &Batch) -> Result<(), Refusal> {
    let Some(first) = batch.records.first() else {
        return Err(Refusal::Protocol { detail: "a batch without records".into() });
    };
    let mut due = first.header.lsn;
    for record in &batch.records {
        let found = record.header.lsn;
        if found == Lsn::ZERO || found == Lsn::MAX {
            return Err(Refusal::Protocol { detail: format!("a record at position {found}") });
        }
        if found != due {
            return Err(Refusal::Gap { expected: due, found });
        }
        due = found.next();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use landfall_types::{DiskIndex, Epoch, EpochId, Incarnation, Record};

    fn record(lsn: u64, content: u8) -> Record {
        Record::write(Lsn::new(lsn), DiskIndex(0), 0, Bytes::copy_from_slice(&[content]))
    }
    fn batch(chain_before: Chain, records: Vec<Record>) -> Batch {
        Batch {
            epoch: Epoch { number: 1, id: EpochId::new(1), parent: None },
            incarnation: Incarnation::new(1),
            chain_before,
            source_position: 0,
            records,
        }
    }
    /// The chain of records 1 ..= `through`, content = position.
    fn chain(through: u8) -> Chain {
        (1..=through).fold(Chain::ROOT, |chain, n| record(n.into(), n).chain(chain))
    }
    fn range(from: u8, through: u8) -> Batch {
        batch(chain(from - 1), (from..=through).map(|n| record(n.into(), n)).collect())
    }
    fn at(received: u8) -> Intake {
        Intake::new(Lsn::new(received.into()), chain(received))
    }

    /// Every pair of a batch's first and last position against received = 4.
    #[test]
    fn every_overlap_has_its_verdict() {
        for first in 1..=8_u8 {
            for last in first..=8 {
                let mut intake = at(4);
                let verdict = intake.accept(range(first, last));
                if first > 5 {
                    let (expected, found) = (Lsn::new(5), Lsn::new(first.into()));
                    assert_eq!(verdict, Err(Refusal::Gap { expected, found }));
                    assert_eq!(intake.received(), Lsn::new(4));
                } else if last < 4 {
                    assert_eq!(verdict, Ok(Verdict::Older(range(first, last))));
                } else if last == 4 {
                    assert_eq!(verdict, Ok(Verdict::Duplicate));
                } else {
                    assert_eq!(verdict, Ok(Verdict::Next(range(5, last))), "{first}..={last}");
                    assert_eq!(
                        (intake.received(), intake.chain),
                        (Lsn::new(last.into()), chain(last))
                    );
                }
            }
        }
    }

    /// Guards P3. T-1: the sender died after 4, starts again and numbers new writes 3 and 4: not
    /// duplicates.
    #[test]
    fn t1_renumbered_records_are_refused_and_not_taken_for_duplicates() {
        let renumbered = batch(chain(2), vec![record(3, 33), record(4, 44)]);
        let mut intake = at(4);
        let lsn = Lsn::new(4);
        assert_eq!(intake.accept(renumbered), Err(Refusal::ChainMismatch { lsn }));
        // Also when they go on past what is there, and when they begin right behind another past.
        let longer = batch(chain(2), vec![record(3, 33), record(4, 44), record(5, 55)]);
        assert_eq!(intake.accept(longer), Err(Refusal::ChainMismatch { lsn }));
        let next = batch(chain(3), vec![record(5, 5)]);
        assert_eq!(intake.accept(next), Err(Refusal::ChainMismatch { lsn }));
        assert_eq!(intake.received(), lsn);
        assert_eq!(intake.accept(range(5, 5)), Ok(Verdict::Next(range(5, 5))));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let mut intake = at(4);
        let empty = intake.accept(batch(chain(4), vec![]));
        assert!(matches!(empty, Err(Refusal::Protocol { .. })));
        let hole = intake.accept(batch(chain(4), vec![record(5, 5), record(7, 7)]));
        let (expected, found) = (Lsn::new(6), Lsn::new(7));
        assert_eq!(hole, Err(Refusal::Gap { expected, found }));
        let mut end = range(5, 5);
        end.records[0].header.lsn = Lsn::MAX;
        assert!(matches!(intake.accept(end), Err(Refusal::Protocol { .. })));
        let mut none = range(5, 5);
        none.records[0].header.lsn = Lsn::ZERO;
        assert!(matches!(intake.accept(none), Err(Refusal::Protocol { .. })));
    }
}
