//! What a new incarnation has to do before there are recovery points again: decided from the
//! receiver's position alone.

use landfall_repl::{ImageCopyPosition, ReceiverPosition};
use landfall_types::{DiskIndex, Lsn, WindowId, WindowReason};

/// Work between the opening and the closing of a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Why.
    pub reason: WindowReason,
    /// Pieces of a first copy, straight into the image.
    pub image: Option<ImagePlan>,
    /// Compare the whole disks afterwards, and send what differs through the log.
    pub compare: bool,
}

/// Where a first copy goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImagePlan {
    /// The window that its pieces name; `None`: the one that is opened now.
    pub window: Option<WindowId>,
    /// Bytes from the start of each disk that are in the image already.
    pub durable_bytes: Vec<(DiskIndex, u64)>,
}

impl Plan {
    /// For a producer that knows nothing of its past.
    ///
    /// A first copy that an earlier incarnation began is finished, because that is the cheapest way
    /// for what is not there yet; but what was written between the two incarnations is in nobody's
    /// log, and journaled writes of the earlier one lie over the image: so everything is compared
    /// afterwards.
    #[must_use]
    pub fn from_position(position: &ReceiverPosition) -> Self {
        match &position.image_copy {
            Some(copy) => Self::finish_copy(copy, WindowReason::NewIncarnation),
            None if position.durable == Lsn::ZERO => Self::first_copy(),
            None => Self::compare_all(WindowReason::NewIncarnation),
        }
    }

    /// Everything, into an empty image.
    #[must_use]
    pub const fn first_copy() -> Self {
        let image = ImagePlan { window: None, durable_bytes: Vec::new() };
        Self { reason: WindowReason::FirstCopy, image: Some(image), compare: false }
    }

    /// All disks by hashes.
    #[must_use]
    pub const fn compare_all(reason: WindowReason) -> Self {
        Self { reason, image: None, compare: true }
    }

    /// The rest of a first copy, then all disks by hashes.
    #[must_use]
    pub fn finish_copy(copy: &ImageCopyPosition, reason: WindowReason) -> Self {
        let image =
            ImagePlan { window: Some(copy.window), durable_bytes: copy.durable_bytes.clone() };
        Self { reason, image: Some(image), compare: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{Chain, Epoch, EpochId, Incarnation, Lineage};

    fn position(durable: u64, image_copy: Option<ImageCopyPosition>) -> ReceiverPosition {
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        ReceiverPosition {
            lineage: Lineage::root(epoch),
            incarnation: Incarnation::NONE,
            durable: Lsn::new(durable),
            chain: Chain::ROOT,
            source_position: 0,
            durable_at_target: Lsn::ZERO,
            image_copy,
            open_windows: vec![],
        }
    }

    #[test]
    fn each_position_has_its_plan() {
        assert_eq!(Plan::from_position(&position(0, None)), Plan::first_copy());
        let compare = Plan::compare_all(WindowReason::NewIncarnation);
        assert_eq!(Plan::from_position(&position(9, None)), compare);
        let copy =
            ImageCopyPosition { window: WindowId(1), durable_bytes: vec![(DiskIndex(0), 4096)] };
        let plan = Plan::from_position(&position(9, Some(copy)));
        assert!(plan.compare, "what was written between the incarnations is in nobody's log");
        let image = plan.image.expect("the rest is copied");
        assert_eq!(image.window, Some(WindowId(1)));
        assert_eq!(image.durable_bytes, [(DiskIndex(0), 4096)]);
    }
}
