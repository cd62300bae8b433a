//! What the target has asked for again, because its copy has rotted (trap T-20).

use crate::ranges::RangeSet;
use landfall_repl::ReceiverPosition;
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::collections::BTreeMap;

type Ranges = BTreeMap<DiskIndex, RangeSet>;

/// Asked for and not sent yet; and what was sent last, so that a question that was asked before the
/// answer had arrived is not answered twice.
#[derive(Default)]
pub(super) struct Rotten {
    waiting: Ranges,
    sent: Ranges,
    /// The closing of the window in which that was sent.
    sent_at: Lsn,
}

impl Rotten {
    /// The log begins anew where the receiver stands: what was sent behind that is lost.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// Takes up what a receiver says at the begin of a session; true where something of it is new.
    pub(super) fn ask(&mut self, position: &ReceiverPosition) -> bool {
        let arrived = position.durable_at_target >= self.sent_at;
        let mut new = false;
        for (disk, range) in &position.rotten {
            let mut asked = RangeSet::of(*range);
            for known in self.known(arrived, *disk) {
                known.within(*range).into_iter().for_each(|part| asked.remove(part));
            }
            let waiting = self.waiting.entry(*disk).or_default();
            for part in asked.iter() {
                waiting.insert(part);
                new = true;
            }
        }
        new
    }

    fn known(&self, arrived: bool, disk: DiskIndex) -> Vec<&RangeSet> {
        let sent = (!arrived).then(|| self.sent.get(&disk)).flatten();
        self.waiting.get(&disk).into_iter().chain(sent).collect()
    }

    /// What the next window has to send.
    pub(super) fn waiting(&self) -> Vec<(DiskIndex, ByteRange)> {
        let of_disk = |(disk, set): (&DiskIndex, &RangeSet)| {
            set.iter().map(|range| (*disk, range)).collect::<Vec<_>>()
        };
        self.waiting.iter().flat_map(of_disk).collect()
    }

    /// A window in which all of it was sent was closed at `lsn`.
    pub(super) fn sent(&mut self, lsn: Lsn) {
        if !self.waiting.is_empty() {
            self.sent = std::mem::take(&mut self.waiting);
            self.sent_at = lsn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{Chain, Epoch, EpochId, Incarnation, Lineage};

    fn says(at_target: u64, ranges: &[(u64, u64)]) -> ReceiverPosition {
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        let range = |(start, end): &(u64, u64)| ByteRange { start: *start, end: *end };
        ReceiverPosition {
            lineage: Lineage::root(epoch),
            incarnation: Incarnation::new(1),
            durable: Lsn::new(90),
            chain: Chain::ROOT,
            source_position: 0,
            durable_at_target: Lsn::new(at_target),
            image_copy: None,
            open_windows: vec![],
            rotten: ranges.iter().map(|one| (DiskIndex(0), range(one))).collect(),
        }
    }

    fn waiting(rotten: &Rotten) -> Vec<(u64, u64)> {
        rotten.waiting().iter().map(|(_, range)| (range.start, range.end)).collect()
    }

    /// A session that breaks while the answer is under way brings the same question again.
    #[test]
    fn t20_a_question_is_answered_once() {
        let mut rotten = Rotten::default();
        assert!(!rotten.ask(&says(10, &[])));
        assert!(rotten.ask(&says(10, &[(0, 4096), (8192, 12_288)])));
        assert!(!rotten.ask(&says(10, &[(0, 4096)])), "it waits already");
        assert!(rotten.ask(&says(10, &[(2048, 8192)])), "more of it");
        assert_eq!(waiting(&rotten), [(0, 12_288)]);
        rotten.sent(Lsn::new(50));
        assert_eq!(waiting(&rotten), []);
        assert!(!rotten.ask(&says(49, &[(0, 4096)])), "the answer has not arrived");
        assert!(rotten.ask(&says(49, &[(0, 16_384)])), "a part that was not sent");
        assert_eq!(waiting(&rotten), [(12_288, 16_384)]);
        rotten.sent(Lsn::new(60));
        assert!(rotten.ask(&says(60, &[(0, 4096)])), "it has rotted once more");
        rotten.sent(Lsn::new(70));
        rotten.begin_anew();
        assert!(rotten.ask(&says(60, &[(0, 4096)])), "the answer was lost");
    }
}
