//! What a fold writes, in disk order: the one place that knows where that comes from.

use super::super::Replica;
use crate::body::FoldMark;
use crate::error::StorageError;
use crate::medium::{DiskMaps, Holder};
use crate::sync::lock;
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn};

/// A stretch of a disk and what holds it newest.
#[derive(Clone, Copy, Debug)]
pub(in crate::replica) struct Extent {
    pub(in crate::replica) disk: DiskIndex,
    pub(in crate::replica) range: ByteRange,
    pub(in crate::replica) holder: Holder,
}

/// The newest holders of what the records behind the image up to a position touch.
#[derive(Debug)]
pub(in crate::replica) struct Plan(DiskMaps);

impl Plan {
    /// Size and sectors of a disk at the position that is folded to (trap T-9).
    pub(in crate::replica) fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        self.0.disk(disk).map(|map| map.geometry)
    }

    /// Bytes that the fold writes or zeroes.
    pub(in crate::replica) fn total_bytes(&self) -> u64 {
        self.extents(None).map(|extent| extent.range.len()).sum()
    }

    /// The extents by disk and offset, without overlaps, cut off at the disks' ends, from `after`
    /// on.
    pub(in crate::replica) fn extents(
        &self,
        after: Option<FoldMark>,
    ) -> impl Iterator<Item = Extent> + '_ {
        let whole = self.0.iter().flat_map(|(disk, map)| {
            let size = map.geometry.size_bytes;
            map.extents.iter().map(move |(range, holder)| {
                let range = ByteRange { end: range.end.min(size), ..range };
                Extent { disk, range, holder }
            })
        });
        whole.filter_map(move |extent| behind(extent, after))
    }
}

/// What of an extent lies behind the mark.
fn behind(extent: Extent, mark: Option<FoldMark>) -> Option<Extent> {
    let start = match mark {
        Some(mark) if extent.disk < mark.disk => return None,
        Some(mark) if extent.disk == mark.disk => extent.range.start.max(mark.offset),
        _ => extent.range.start,
    };
    let range = ByteRange { start, ..extent.range };
    (range.start < range.end).then_some(Extent { range, ..extent })
}

impl Replica {
    /// What a fold from where the image stands to `to` writes.
    pub(in crate::replica) fn plan(&self, to: Lsn) -> Result<Plan, StorageError> {
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        Ok(Plan(core.build(&body, body.log, to)?.0))
    }
}
