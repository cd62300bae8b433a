//! What a fold writes, in disk order: the one place that knows where that comes from.

use super::super::Replica;
use crate::body::FoldMark;
use crate::error::StorageError;
use crate::index::{Held, Scene};
use crate::medium::Geometries;
use crate::replica::core::geometries;
use crate::sync::lock;
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn};

/// A stretch of a disk and what holds it newest.
#[derive(Clone, Copy, Debug)]
pub(in crate::replica) struct Extent {
    pub(in crate::replica) disk: DiskIndex,
    pub(in crate::replica) range: ByteRange,
    pub(in crate::replica) held: Held,
}

/// The newest holders of what the records behind the image up to a position touch. Nothing of it is
/// in memory but the places where walks over it stand.
#[derive(Debug)]
pub(in crate::replica) struct Plan {
    scene: Scene,
    geometries: Geometries,
    /// Where the image stands.
    folded: Lsn,
    total_bytes: u64,
}

impl Plan {
    /// Size and sectors of a disk at the position that is folded to (trap T-9).
    pub(in crate::replica) fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        self.geometries.get(&disk).copied()
    }

    /// Bytes that the fold writes or zeroes.
    pub(in crate::replica) const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes of the extents from `after` on. Walks over all of them.
    pub(in crate::replica) fn bytes_behind(
        &self,
        after: Option<FoldMark>,
    ) -> Result<u64, StorageError> {
        self.extents(after).map(|extent| Ok(extent?.range.len())).sum()
    }

    /// The extents by disk and offset, without overlaps, cut off at the disks' ends, from `after`
    /// on. What can't be read comes as an error in its place.
    pub(in crate::replica) fn extents(
        &self,
        after: Option<FoldMark>,
    ) -> impl Iterator<Item = Result<Extent, StorageError>> + '_ {
        self.geometries.iter().flat_map(move |(disk, geometry)| {
            let range = behind(*disk, geometry.size_bytes, after);
            let sweep = self.scene.sweep(*disk, range, self.folded);
            sweep.map(move |found| found.map(|(range, held)| Extent { disk: *disk, range, held }))
        })
    }
}

/// What of a disk lies behind the mark.
fn behind(disk: DiskIndex, size_bytes: u64, mark: Option<FoldMark>) -> ByteRange {
    let start = match mark {
        Some(mark) if disk < mark.disk => size_bytes,
        Some(mark) if disk == mark.disk => mark.offset,
        _ => 0,
    };
    ByteRange { start, end: size_bytes }
}

impl Replica {
    /// What a fold from where the image stands to `to` writes.
    pub(in crate::replica) fn plan(&self, to: Lsn) -> Result<Plan, StorageError> {
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        let timeline = core.timeline(&body, body.log, to)?;
        let geometries = geometries(&body, &timeline, to);
        let scene = core.scene(&self.medium, &body, body.log, Some(to))?;
        drop(core);
        let mut plan = Plan { scene, geometries, folded: body.folded, total_bytes: 0 };
        plan.total_bytes = plan.bytes_behind(None)?;
        Ok(plan)
    }
}
