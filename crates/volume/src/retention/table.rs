//! The list of points on disk: two files, written in turn. Normative: `docs/formats/volume.md`.
//!
//! Losing it loses no point: markers that were taken off the list are listed again, and all count
//! as new. So a write that fails is reported and tried again, and nothing waits for one.

use super::{Listing, Meter};
use crate::error::StorageError;
use crate::frame::{FRAME_BODY_BYTES_MAX, seal, unseal};
use landfall_blockdev::{Dir, File};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LFPOINTS";
const COPIES: u64 = 2;
/// Longest file that is read: what the frame allows.
const BYTES_MAX: u64 = 5 << 20;

/// What the files hold.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) listing: Listing,
    pub(crate) meter: Meter,
}

fn name(copy: u64) -> String {
    format!("points.{copy}")
}

impl Table {
    /// The newest readable copy, with its sequence; none when there is none.
    pub(crate) fn load(dir: &dyn Dir) -> Option<(u64, Self)> {
        (0..COPIES).filter_map(|copy| Self::read(dir, copy)).max_by_key(|(sequence, _)| *sequence)
    }

    fn read(dir: &dyn Dir, copy: u64) -> Option<(u64, Self)> {
        let file = dir.open(&name(copy)).ok()?;
        let length = usize::try_from(file.len().ok()?.min(BYTES_MAX)).ok()?;
        let mut bytes = vec![0; length];
        file.read_at(0, &mut bytes).ok()?;
        let (sequence, body) = unseal(MAGIC, &bytes).ok()?;
        Some((sequence, minicbor_serde::from_slice(body).ok()?))
    }

    /// Writes it over the older copy; durable when this returns. A cut in the middle leaves the
    /// newer one.
    ///
    /// # Errors
    /// [`StorageError::Device`].
    pub(crate) fn save(&self, dir: &dyn Dir, sequence: u64) -> Result<(), StorageError> {
        let device = || StorageError::device("write the list of points");
        let body = minicbor_serde::to_vec(self).map_err(|_| StorageError::Encode)?;
        if body.len() > FRAME_BODY_BYTES_MAX {
            // Some 200 000 markers: a schedule that thins nothing. Then only memory has the list.
            return Err(StorageError::Encode);
        }
        let name = name(sequence % COPIES);
        let known = dir.list().map_err(device())?.contains(&name);
        let file: Arc<dyn File> =
            if known { dir.open(&name) } else { dir.create(&name) }.map_err(device())?;
        file.write_at(0, &seal(MAGIC, sequence, &body)).map_err(device())?;
        file.sync_data().map_err(device())?;
        if known { Ok(()) } else { dir.sync().map_err(device()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Point;
    use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};
    use landfall_types::{LogId, Lsn, Marker, MarkerKind};

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/points-v1.bin");

    fn table(markers: u64) -> Table {
        let mut listing = Listing::new(LogId::from_bytes([4; 16]));
        let mut meter = Meter::default();
        for n in 1..=markers {
            let kind = MarkerKind::ApplicationConsistent;
            let marker = Marker { kind, time_unix_ns: 7, name: None, group: None };
            let point = Point { lsn: Lsn::new(n * 70_000), marker };
            listing.look(n * 5_000, &[point], Lsn::new(n * 70_000 + 5));
            meter.look(n * 4_096, n << 22);
        }
        Table { listing, meter }
    }

    fn loaded(dir: &dyn Dir) -> Option<(u64, Table)> {
        Table::load(dir).map(|(sequence, mut table)| {
            // What is not stored: the last look of the process.
            table.meter = Meter::default();
            (sequence, table)
        })
    }

    fn told(markers: u64) -> Table {
        Table { meter: Meter::default(), ..table(markers) }
    }

    #[test]
    fn golden_points() {
        let body = minicbor_serde::to_vec(table(3)).expect("encodes");
        let bytes = seal(MAGIC, 41, &body);
        if std::env::var_os("LANDFALL_GOLDEN_WRITE").is_some() {
            std::fs::write(GOLDEN, &bytes).expect("written");
        }
        let golden = std::fs::read(GOLDEN).expect("the golden file is there");
        assert!(bytes == golden, "the format of the list of points has changed");
        let (sequence, body) = unseal(MAGIC, &golden).expect("a frame");
        assert_eq!(sequence, 41);
        let found: Table = minicbor_serde::from_slice(body).expect("decodes");
        assert_eq!(found.listing, table(3).listing);
        assert_eq!(found.meter.rates(), table(3).meter.rates());
    }

    /// A cut at any moment leaves the list as it was or as it was to be; never none once there was
    /// one.
    #[test]
    fn a_cut_leaves_the_list_before_or_the_new_one() {
        let medium = SimMedium::new(512);
        let dir = medium.root();
        assert!(Table::load(&*dir).is_none());
        table(1).save(&*dir, 1).expect("saved");
        medium.restart_trace();
        for n in 2..=4 {
            table(n).save(&*dir, n).expect("saved");
            medium.promise();
        }
        let stat = for_each_power_cut(&medium.trace(), CutOptions::QUICK, |cut| {
            let (sequence, found) = loaded(&*cut.medium.root()).expect("one is whole");
            let durable = cut.promises as u64 + 1;
            assert!((durable..=durable + 1).contains(&sequence), "{sequence} at {durable}");
            assert_eq!(found, told(sequence));
        });
        assert!(stat.cuts > 10);
    }

    #[test]
    fn rot_costs_one_copy() {
        let medium = SimMedium::new(512);
        let dir = medium.root();
        for n in 1..=2 {
            table(n).save(&*dir, n).expect("saved");
        }
        dir.open(&name(0)).expect("there").write_at(40, &[0xff; 4]).expect("written");
        assert_eq!(loaded(&*dir), Some((1, told(1))));
    }
}
