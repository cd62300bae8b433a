//! What a producer has to do before there are recovery points again: decided from the receiver's
//! position and from what the capture knows, by nothing else.

use landfall_capture::Origin;
use landfall_repl::{ImageCopyPosition, ReceiverPosition};
use landfall_types::{ByteRange, DiskIndex, Incarnation, Lsn, WindowId, WindowReason};

/// Work between the opening and the closing of a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Why.
    pub reason: WindowReason,
    /// Pieces of a first copy, straight into the image.
    pub image: Option<ImagePlan>,
    /// What is done afterwards, through the log; disks without work are left out.
    pub disks: Vec<(DiskIndex, DiskWork)>,
    /// Sent in any case, unseen: what has rotted at the target (trap T-20).
    pub ranges: Vec<(DiskIndex, ByteRange)>,
}

/// How the rest of a disk is made equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskWork {
    /// Send the ranges that the bitmap says are dirty.
    Dirty,
    /// Compare the whole disk by hashes, and send what differs.
    Compare,
}

/// Where a first copy goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImagePlan {
    /// The window that its pieces name; `None`: the one that is opened now.
    pub window: Option<WindowId>,
    /// Bytes from the start of each disk that are in the image already.
    pub durable_bytes: Vec<(DiskIndex, u64)>,
}

/// What a capture that was just started knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Knowledge {
    /// Of the capture.
    pub incarnation: Incarnation,
    /// Where the capture comes from.
    pub origin: Origin,
    /// The positions that its ring holds: first and end.
    pub ring: (u64, u64),
    /// Each disk.
    pub disks: Vec<(DiskIndex, Bitmap)>,
    /// What the target was known to have durable when dirty bits were dropped last. A target that
    /// has less has lost something, and the bitmap does not know what.
    pub settled: Lsn,
    /// The incarnations that the bits know of, where they are of an earlier life of the machine. A
    /// receiver whose newest record is of another one has seen a life that these disks have not:
    /// they were put back to an older state (trap T-16).
    pub ancestry: Option<Vec<Incarnation>>,
}

/// What the bitmap knows of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bitmap {
    /// Nothing: the target may lack any block.
    Nothing,
    /// The target lacks no more than what is dirty, and records that are not durable yet.
    Dirty,
    /// The target lacks nothing but records that are not durable yet.
    InStep,
}

/// How the log goes on at a receiver's position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// Read the ring from here on: the receiver has everything before, and nothing is missing.
    /// `None`: from where the reader stands.
    pub seek: Option<u64>,
    /// What has to be done; `None`: nothing.
    pub plan: Option<Plan>,
}

impl Knowledge {
    /// True when the receiver's position is one in our ring: its last record came from it, and all
    /// later ones are still there.
    fn continues(&self, position: &ReceiverPosition) -> bool {
        let (first, end) = self.ring;
        self.origin == Origin::Resumed
            && position.incarnation == self.incarnation
            && (first..=end).contains(&position.source_position)
            && position.durable >= self.settled
    }

    /// True when the bits say all that the target may lack.
    fn reaches(&self, position: &ReceiverPosition) -> bool {
        let known = |all: &Vec<Incarnation>| all.contains(&position.incarnation);
        position.durable >= self.settled && self.ancestry.as_ref().is_none_or(known)
    }

    /// What makes each disk equal to the target at this position. Without the records of the ring
    /// also a disk that is in step lacks what they would have carried.
    fn work(&self, position: &ReceiverPosition, ring: bool) -> Vec<(DiskIndex, DiskWork)> {
        let known = self.reaches(position);
        let work = |bitmap| match bitmap {
            Bitmap::InStep if known && ring => None,
            Bitmap::InStep | Bitmap::Dirty if known => Some(DiskWork::Dirty),
            Bitmap::Nothing | Bitmap::Dirty | Bitmap::InStep => Some(DiskWork::Compare),
        };
        self.disks.iter().filter_map(|(disk, bitmap)| Some((*disk, work(*bitmap)?))).collect()
    }
}

impl Plan {
    /// For a producer that meets the receiver for the first time in this process.
    ///
    /// Three cases. The capture went on while the agent was dead, and the receiver stands in its
    /// ring: nothing is missing, but the windows that the dead agent left open need their work. Or
    /// the bitmap went on: what it says is missing. Or nothing is known: a first copy that an
    /// earlier incarnation began is finished, because that is the cheapest way for what is not
    /// there yet, and everything is compared, because what was written in between is in nobody's
    /// log, and journaled writes of the earlier one lie over the image.
    #[must_use]
    pub fn from_position(position: &ReceiverPosition, known: &Knowledge) -> Start {
        let reason = WindowReason::NewIncarnation;
        if position.durable == Lsn::ZERO {
            return Start { seek: None, plan: Some(Self::first_copy()) };
        }
        let copy = position.image_copy.as_ref();
        let image = copy.map(Self::rest_of);
        if !known.continues(position) {
            let disks = known.work(position, false);
            let plan = Self { reason, image, disks, ranges: vec![] };
            return Start { seek: None, plan: Some(plan) };
        }
        let mut disks = known.work(position, true);
        if copy.is_some_and(|copy| position.open_windows == [copy.window]) {
            // Nothing else has happened in this incarnation: all that was written since the copy
            // began is in the log, or has a bit.
            disks = known.disks.iter().map(|(disk, _)| (*disk, DiskWork::Dirty)).collect();
        }
        let nothing = image.is_none() && disks.is_empty() && position.open_windows.is_empty();
        let plan = (!nothing).then_some(Self { reason, image, disks, ranges: vec![] });
        Start { seek: Some(position.source_position), plan }
    }

    /// Everything, into an empty image.
    #[must_use]
    pub const fn first_copy() -> Self {
        let image = ImagePlan { window: None, durable_bytes: Vec::new() };
        Self {
            reason: WindowReason::FirstCopy,
            image: Some(image),
            disks: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// Nothing but what the window adds by itself: see [`Plan::ranges`].
    #[must_use]
    pub const fn rotten() -> Self {
        Self { reason: WindowReason::Rotten, image: None, disks: Vec::new(), ranges: Vec::new() }
    }

    /// These disks by hashes; and the rest of a first copy, if one is under way.
    #[must_use]
    pub fn compare(
        reason: WindowReason,
        copy: Option<&ImageCopyPosition>,
        disks: impl IntoIterator<Item = DiskIndex>,
    ) -> Self {
        let disks = disks.into_iter().map(|disk| (disk, DiskWork::Compare)).collect();
        Self { reason, image: copy.map(Self::rest_of), disks, ranges: Vec::new() }
    }

    fn rest_of(copy: &ImageCopyPosition) -> ImagePlan {
        ImagePlan { window: Some(copy.window), durable_bytes: copy.durable_bytes.clone() }
    }

    /// True when a disk is compared as a whole.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.disks.iter().any(|(_, work)| *work == DiskWork::Compare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{Chain, Epoch, EpochId, Lineage};

    const DISK: DiskIndex = DiskIndex(0);
    const OURS: Incarnation = Incarnation::new(7);

    fn position(durable: u64, open_windows: &[u64], copied: Option<u64>) -> ReceiverPosition {
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        let copy =
            |bytes| ImageCopyPosition { window: WindowId(1), durable_bytes: vec![(DISK, bytes)] };
        ReceiverPosition {
            lineage: Lineage::root(epoch),
            incarnation: OURS,
            durable: Lsn::new(durable),
            chain: Chain::ROOT,
            source_position: 500,
            durable_at_target: Lsn::ZERO,
            image_copy: copied.map(copy),
            open_windows: open_windows.iter().map(|id| WindowId(*id)).collect(),
            rotten: vec![],
        }
    }

    fn known(origin: Origin, bitmap: Bitmap) -> Knowledge {
        Knowledge {
            incarnation: OURS,
            origin,
            ring: (400, 900),
            disks: vec![(DISK, bitmap)],
            settled: Lsn::new(5),
            ancestry: None,
        }
    }

    fn only(work: DiskWork, start: &Start) -> bool {
        start.seek.is_none() && start.plan.as_ref().is_some_and(|plan| plan.disks == [(DISK, work)])
    }

    #[test]
    fn an_empty_replica_gets_a_first_copy_whatever_is_known() {
        for origin in [Origin::Fresh, Origin::Resumed, Origin::Replaced] {
            let known = known(origin, Bitmap::InStep);
            let start = Plan::from_position(&position(0, &[], None), &known);
            assert_eq!(start, Start { seek: None, plan: Some(Plan::first_copy()) });
        }
    }

    /// Capture outlived the agent: nothing is missing, and there is no window.
    #[test]
    fn a_receiver_that_stands_in_the_ring_is_gone_on_with() {
        let start =
            Plan::from_position(&position(9, &[], None), &known(Origin::Resumed, Bitmap::InStep));
        assert_eq!(start, Start { seek: Some(500), plan: None });
        // A catch-up that the dead agent had begun: its work is in the bitmap, whether the receiver
        // has heard of its window or not.
        for windows in [&[][..], &[3]] {
            let dirty = known(Origin::Resumed, Bitmap::Dirty);
            let start = Plan::from_position(&position(9, windows, None), &dirty);
            assert_eq!(start.seek, Some(500));
            assert_eq!(start.plan.expect("work").disks, [(DISK, DiskWork::Dirty)]);
        }
        // A window that needs nothing but its closing.
        let start =
            Plan::from_position(&position(9, &[3], None), &known(Origin::Resumed, Bitmap::InStep));
        assert_eq!(start.plan.expect("a window").disks, []);
    }

    #[test]
    fn a_first_copy_under_continuous_capture_needs_no_comparison() {
        let nothing = known(Origin::Resumed, Bitmap::Nothing);
        let start = Plan::from_position(&position(9, &[1], Some(4096)), &nothing);
        let plan = start.plan.expect("the rest is copied");
        assert_eq!(plan.disks, [(DISK, DiskWork::Dirty)]);
        let image = plan.image.expect("the rest is copied");
        assert_eq!((image.window, image.durable_bytes), (Some(WindowId(1)), vec![(DISK, 4096)]));
        // A second window in it: what that one was for is not known.
        let start = Plan::from_position(&position(9, &[1, 4], Some(4096)), &nothing);
        assert_eq!(start.plan.expect("work").disks, [(DISK, DiskWork::Compare)]);
    }

    /// Every way in which the ring can't be gone on with; the bitmap is enough.
    #[test]
    fn where_the_ring_has_a_gap_the_bitmap_says_what_is_missing() {
        let at = position(9, &[], None);
        for bitmap in [Bitmap::Dirty, Bitmap::InStep] {
            let mut gap = known(Origin::Resumed, bitmap);
            for ring in [(501, 900), (400, 499)] {
                gap.ring = ring;
                assert!(only(DiskWork::Dirty, &Plan::from_position(&at, &gap)), "{ring:?}");
            }
            let other = ReceiverPosition { incarnation: Incarnation::new(8), ..at.clone() };
            let resumed = known(Origin::Resumed, bitmap);
            assert!(only(DiskWork::Dirty, &Plan::from_position(&other, &resumed)));
            let replaced = known(Origin::Replaced, bitmap);
            assert!(only(DiskWork::Dirty, &Plan::from_position(&at, &replaced)));
        }
    }

    /// Guards P2. T-1: a target that lost what it had acknowledged, after the bits of that were
    /// dropped: the bitmap does not know what is missing.
    #[test]
    fn t1_a_target_that_lost_durable_records_is_compared() {
        for origin in [Origin::Resumed, Origin::Replaced] {
            let known = known(origin, Bitmap::InStep);
            let start = Plan::from_position(&position(4, &[], None), &known);
            assert!(only(DiskWork::Compare, &start), "{start:?}");
        }
    }

    /// T-16: bits that were kept over a restart. Only the life that the target has seen last may
    /// have kept them.
    #[test]
    fn t16_a_machine_that_was_put_back_to_an_older_state_is_compared() {
        let kept = |ancestry: &[u64]| Knowledge {
            incarnation: Incarnation::new(9),
            ancestry: Some(ancestry.iter().map(|one| Incarnation::new(*one)).collect()),
            ..known(Origin::Replaced, Bitmap::Dirty)
        };
        let at = position(9, &[], None);
        assert!(only(DiskWork::Dirty, &Plan::from_position(&at, &kept(&[5, 7]))));
        assert!(only(DiskWork::Compare, &Plan::from_position(&at, &kept(&[5, 6]))));
        assert!(only(DiskWork::Compare, &Plan::from_position(&at, &kept(&[]))));
    }

    #[test]
    fn without_a_past_everything_is_compared() {
        let fresh = known(Origin::Fresh, Bitmap::Nothing);
        assert!(only(DiskWork::Compare, &Plan::from_position(&position(9, &[], None), &fresh)));
        let start = Plan::from_position(&position(9, &[1], Some(4096)), &fresh);
        assert!(only(DiskWork::Compare, &start), "also what the copy has not reached yet");
        assert!(start.plan.expect("work").image.is_some(), "the rest is copied");
    }
}
