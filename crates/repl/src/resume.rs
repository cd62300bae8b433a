//! What a producer does with the position that a receiver names: the third of the decisions that
//! keep a log from ever having a hole, beside [`crate::admit`] and [`crate::follow_target`].
//!
//! Pure, so that the agent and the simulation make the same decision.

use crate::ReceiverPosition;
use landfall_types::{Chain, Incarnation, Lsn};

/// What a producer knows of its own log.
#[derive(Clone, Copy, Debug)]
pub struct ProducerView {
    /// Whose records these are.
    pub incarnation: Incarnation,
    /// The last record that was forgotten, because the next hop had it durable.
    pub base: Lsn,
    /// The newest record.
    pub tail: Lsn,
    /// The producer's own position (for an agent: the ring's) at `base`.
    pub base_source_position: u64,
    /// What the target is known to have had durable. Dirty bits were dropped up to there at most:
    /// what was written after it has a bit still.
    pub known_at_target: Lsn,
    /// The chain at the receiver's position, where that lies in `base ..= tail`.
    pub chain_there: Option<Chain>,
}

/// How a producer goes on at a receiver's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerResume {
    /// With the record behind it.
    Continue,
    /// It lacks records that were forgotten here, and each block that they wrote has a dirty bit: a
    /// window behind the receiver's position, with the dirty ranges (design section 5.3).
    SendDirty,
    /// Something was lost or is not ours (trap T-1): a new incarnation, and everything is compared.
    Compare(Mismatch),
}

/// Why nothing that is known here can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// It lacks records that were forgotten here, and more than the bitmap knows.
    #[error("the receiver is at {durable}, and records up to {base} were forgotten here")]
    Behind {
        /// The receiver's.
        durable: Lsn,
        /// The last record that is not here any more.
        base: Lsn,
    },
    /// It has records that were never written here.
    #[error("the receiver is at {durable}, ahead of {tail}, the last record here")]
    Ahead {
        /// The receiver's.
        durable: Lsn,
        /// Our last.
        tail: Lsn,
    },
    /// It has other records under the same positions.
    #[error("the receiver has another history at {lsn}")]
    OtherChain {
        /// Where.
        lsn: Lsn,
    },
}

/// Decides how a producer goes on where the receiver stands.
///
/// A relay that lost its spool stands where the target does: behind what we have forgotten, but not
/// behind what the bitmap remembers. That the receiver's last record is one of ours can't be proven
/// by its chain, which was forgotten with the record; it is by two other things:
/// * it is of our incarnation (or the receiver has nothing of it, and then bits say all);
/// * our ring was not further then than at `base`. A machine that was reverted to a snapshot of its
///   memory (trap T-1) finds the records that it sent *after* the snapshot; what they hold came out
///   of the ring behind everything that the snapshot knows of.
#[must_use]
pub fn follow_receiver(view: &ProducerView, position: &ReceiverPosition) -> ProducerResume {
    let durable = position.durable;
    let (base, tail) = (view.base, view.tail);
    if durable > tail {
        return ProducerResume::Compare(Mismatch::Ahead { durable, tail });
    }
    if durable >= base {
        return match view.chain_there {
            Some(chain) if chain == position.chain => ProducerResume::Continue,
            _ => ProducerResume::Compare(Mismatch::OtherChain { lsn: durable }),
        };
    }
    let ours = position.incarnation == view.incarnation
        && position.source_position <= view.base_source_position;
    if ours && durable >= view.known_at_target && durable > Lsn::ZERO {
        ProducerResume::SendDirty
    } else {
        ProducerResume::Compare(Mismatch::Behind { durable, base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{chain, identity, position};

    fn view(chain_there: Option<Chain>) -> ProducerView {
        ProducerView {
            incarnation: identity().incarnation,
            base: Lsn::new(50),
            tail: Lsn::new(80),
            base_source_position: 500,
            known_at_target: Lsn::new(20),
            chain_there,
        }
    }
    fn at(durable: u64, ring: u64) -> ReceiverPosition {
        ReceiverPosition {
            source_position: ring,
            incarnation: identity().incarnation,
            ..position(durable)
        }
    }

    #[test]
    fn where_the_records_are_still_here_the_chain_decides() {
        let there = Some(chain(60));
        assert_eq!(follow_receiver(&view(there), &at(60, 0)), ProducerResume::Continue);
        let other = ProducerResume::Compare(Mismatch::OtherChain { lsn: Lsn::new(60) });
        assert_eq!(follow_receiver(&view(Some(chain(61))), &at(60, 0)), other);
        assert_eq!(follow_receiver(&view(None), &at(60, 0)), other);
    }

    /// Guards design section 5.3: a lost spool costs exactly the missing ranges.
    #[test]
    fn a_receiver_that_lost_its_spool_gets_what_is_dirty() {
        for durable in [20, 21, 49] {
            let start = follow_receiver(&view(None), &at(durable, 500));
            assert_eq!(start, ProducerResume::SendDirty, "{durable}");
        }
    }

    /// T-1: each thing that makes the bitmap worthless.
    #[test]
    fn t1_what_the_bitmap_can_not_know_is_compared() {
        let behind = |durable| {
            let (durable, base) = (Lsn::new(durable), Lsn::new(50));
            ProducerResume::Compare(Mismatch::Behind { durable, base })
        };
        assert_eq!(follow_receiver(&view(None), &at(19, 400)), behind(19), "it had more");
        assert_eq!(follow_receiver(&view(None), &at(40, 501)), behind(40), "sent after a snapshot");
        let stranger = ReceiverPosition { incarnation: Incarnation::new(9), ..at(40, 400) };
        assert_eq!(follow_receiver(&view(None), &stranger), behind(40), "another incarnation");
        let fresh = ProducerView { known_at_target: Lsn::ZERO, ..view(None) };
        assert_eq!(follow_receiver(&fresh, &at(0, 0)), behind(0), "an empty replica");
        let (durable, tail) = (Lsn::new(81), Lsn::new(80));
        let ahead = ProducerResume::Compare(Mismatch::Ahead { durable, tail });
        assert_eq!(follow_receiver(&view(None), &at(81, 400)), ahead);
    }
}
