//! What is kept over a restart, and for which disks it counts: docs/formats/saved-bitmap.md.

use super::area::AREA_BYTES;
use super::fingerprint::Fingerprint;
use crate::ranges::RangeSet;
use landfall_types::{ByteRange, DiskIndex, Epoch, Incarnation, Lsn, ReplicaId};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"LFBITMAP";
const VERSION: u32 = 1;
/// The seal has a sector of its own, so that it is written and broken as one.
pub(super) const SEAL_BYTES: usize = 4096;
/// A disk of which more than one part in so many is unproven is compared.
const UNPROVEN_PART: u64 = 8;

/// What is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Whose bits.
    pub replica: ReplicaId,
    /// Of which epoch.
    pub epoch: Epoch,
    /// What the target was known to have durable when bits were dropped last.
    pub settled: Lsn,
    /// Every incarnation that the bits know of.
    pub incarnations: Vec<Incarnation>,
    /// What was not captured.
    pub excluded: Vec<(DiskIndex, ByteRange)>,
    /// The disks that had a baseline.
    pub disks: Vec<SavedDisk>,
}

/// One disk of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedDisk {
    /// How the replica names it.
    pub index: DiskIndex,
    /// Its size.
    pub size_bytes: u64,
    /// What it looked like.
    pub fingerprint: String,
    /// The target lacks no more than this: in order, disjoint.
    pub dirty: Vec<ByteRange>,
}

/// A disk that is there after the restart.
#[derive(Clone, Debug)]
pub struct Present {
    /// Its size.
    pub size_bytes: u64,
    /// What it looks like; `None` where it can't be read.
    pub fingerprint: Option<Fingerprint>,
    /// Every write since the kernel knows it was marked.
    pub seen_all: bool,
}

/// What became of a disk that was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is this one of those present, and dirty there.
    Counts {
        /// Place in the list of those present.
        at: usize,
        /// What the target may lack.
        dirty: Vec<ByteRange>,
    },
    /// None that is present looks like it.
    Changed,
    /// Two look like it.
    Ambiguous,
    /// It was written before anybody watched.
    Unwatched,
    /// Too much of it has nothing that would show a write.
    Unproven,
}

impl Verdict {
    /// For the log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Counts { .. } => "counts",
            Self::Changed => "changed",
            Self::Ambiguous => "ambiguous",
            Self::Unwatched => "unwatched",
            Self::Unproven => "unproven",
        }
    }
}

impl Saved {
    /// Seal and content, as they lie in an area. Where there are too many ranges for it, those that
    /// lie close together become one.
    ///
    /// # Panics
    /// Never: one range for each disk always fits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let room = usize::try_from(AREA_BYTES).expect("fits") - SEAL_BYTES;
        let mut gap = 0;
        let content = loop {
            let content = serde_json::to_vec(&self.coarsened(gap)).expect("plain data");
            if content.len() <= room || gap > u64::MAX / 2 {
                break content;
            }
            gap = (gap * 2).max(4096);
        };
        let mut sealed = Vec::with_capacity(SEAL_BYTES + content.len());
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&VERSION.to_le_bytes());
        sealed.extend_from_slice(&[0; 4]);
        sealed.extend_from_slice(&(content.len() as u64).to_le_bytes());
        sealed.extend_from_slice(blake3::hash(&content).as_bytes());
        sealed.resize(SEAL_BYTES, 0);
        sealed.extend_from_slice(&content);
        sealed
    }

    /// What lies in an area under an unbroken seal; `None` for anything else.
    #[must_use]
    pub fn decode(area: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(area.get(at..at + 8)?.try_into().ok()?));
        let version = u32::from_le_bytes(area.get(8..12)?.try_into().ok()?);
        if !area.starts_with(MAGIC) || version != VERSION {
            return None;
        }
        let length = usize::try_from(number(16)?).ok()?;
        let content = area.get(SEAL_BYTES..SEAL_BYTES.checked_add(length)?)?;
        if area.get(24..56)? != blake3::hash(content).as_bytes() {
            return None;
        }
        serde_json::from_slice(content).ok()
    }

    /// Ranges with at most `gap` bytes between them are one.
    fn coarsened(&self, gap: u64) -> Self {
        let mut coarse = self.clone();
        for disk in &mut coarse.disks {
            disk.dirty.dedup_by(|next, range| {
                let one = next.start.saturating_sub(range.end) <= gap;
                if one {
                    range.end = range.end.max(next.end);
                }
                one
            });
        }
        coarse
    }

    /// Which of the kept disks count, and where they are: a disk may have another name now.
    #[must_use]
    pub fn judge(&self, present: &[Present]) -> Vec<(DiskIndex, Verdict)> {
        let left_out = |disk| {
            let of_it = self.excluded.iter().filter(move |(index, _)| *index == disk);
            of_it.map(|(_, range)| *range).collect::<Vec<_>>()
        };
        let judged = |disk: &SavedDisk| (disk.index, disk.judge(present, &left_out(disk.index)));
        self.disks.iter().map(judged).collect()
    }
}

impl SavedDisk {
    /// What is left out of the replica needs no proof.
    fn judge(&self, present: &[Present], left_out: &[ByteRange]) -> Verdict {
        let same = |one: &Present| {
            let found = one.fingerprint.as_ref();
            one.size_bytes == self.size_bytes && found.is_some_and(|f| f.hash == self.fingerprint)
        };
        let mut alike = present.iter().enumerate().filter(|(_, one)| same(one));
        let Some((at, one)) = alike.next() else { return Verdict::Changed };
        if alike.next().is_some() {
            return Verdict::Ambiguous;
        }
        if !one.seen_all {
            return Verdict::Unwatched;
        }
        let mut unproven = RangeSet::new();
        let found = one.fingerprint.iter().flat_map(|found| &found.unproven);
        found.for_each(|range| unproven.insert(*range));
        left_out.iter().for_each(|range| unproven.remove(*range));
        if unproven.bytes() > self.size_bytes / UNPROVEN_PART {
            return Verdict::Unproven;
        }
        let dirty = self.dirty.iter().copied().chain(unproven.iter()).collect();
        Verdict::Counts { at, dirty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::EpochId;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    fn saved(dirty: Vec<ByteRange>) -> Saved {
        Saved {
            replica: ReplicaId::from_bytes([1; 16]),
            epoch: Epoch { number: 1, id: EpochId::new(7), parent: None },
            settled: Lsn::new(5),
            incarnations: vec![Incarnation::new(3)],
            excluded: vec![(DiskIndex(2), range(20 * MIB, 60 * MIB))],
            disks: vec![SavedDisk {
                index: DiskIndex(2),
                size_bytes: 64 * MIB,
                fingerprint: "f".to_owned(),
                dirty,
            }],
        }
    }

    fn present(hash: &str) -> Present {
        let fingerprint = Fingerprint { hash: hash.to_owned(), unproven: Vec::new() };
        Present { size_bytes: 64 * MIB, fingerprint: Some(fingerprint), seen_all: true }
    }

    #[test]
    fn what_was_sealed_is_read_and_what_was_not_is_not() {
        let saved = saved(vec![range(0, 4096), range(8192, 12288)]);
        let mut area = saved.encode();
        assert_eq!(Saved::decode(&area), Some(saved));
        for at in [0, 8, 16, 24, SEAL_BYTES, area.len() - 1] {
            area[at] ^= 1;
            assert_eq!(Saved::decode(&area), None, "byte {at}");
            area[at] ^= 1;
        }
        for length in [0, 7, 55, SEAL_BYTES, area.len() - 1] {
            assert_eq!(Saved::decode(&area[..length]), None, "{length} bytes");
        }
        assert_eq!(Saved::decode(&vec![0; 1 << 20]), None, "a broken seal");
    }

    /// docs/formats/saved-bitmap.md. `UPDATE=1` writes it anew.
    #[test]
    fn the_format_is_the_one_that_is_documented() {
        let path = "tests/golden/saved-bitmap.bin";
        let area = saved(vec![range(0, 4096), range(8192, 12288)]).encode();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all("tests/golden").expect("a folder");
            std::fs::write(path, &area).expect("writes");
        }
        let golden = std::fs::read(path).expect("is there");
        assert!(area == golden, "another format needs another version");
    }

    /// Nothing that was dirty is forgotten to make room.
    #[test]
    fn many_ranges_are_made_fewer_until_they_fit() {
        let scattered = (0..400_000).map(|at| range(at * 65536, at * 65536 + 4096 + at % 3 * 4096));
        let saved = saved(scattered.collect());
        let area = saved.encode();
        assert!(area.len() <= usize::try_from(AREA_BYTES).expect("fits"));
        let read = Saved::decode(&area).expect("it is sealed");
        let coarse = &read.disks[0].dirty;
        assert!(coarse.len() < 400_000);
        let mut at = coarse.iter();
        let mut now = at.next().expect("one at least");
        for range in &saved.disks[0].dirty {
            while now.end < range.end {
                now = at.next().expect("every range is covered");
            }
            assert!(now.start <= range.start, "{range:?} is not covered");
        }
    }

    /// T-16, T-8: only the disk that looks as it did, wherever it is now.
    #[test]
    fn t16_only_a_disk_that_looks_as_it_did_and_was_watched_counts() {
        let saved = saved(vec![range(0, 4096)]);
        let verdict = |present: &[Present]| saved.judge(present)[0].1.clone();
        let found = verdict(&[present("x"), present("f")]);
        assert_eq!(found, Verdict::Counts { at: 1, dirty: vec![range(0, 4096)] });
        assert_eq!(verdict(&[]), Verdict::Changed);
        assert_eq!(verdict(&[present("x")]), Verdict::Changed);
        assert_eq!(verdict(&[present("f"), present("f")]), Verdict::Ambiguous);
        let other_size = Present { size_bytes: 65 * MIB, ..present("f") };
        assert_eq!(verdict(&[other_size]), Verdict::Changed);
        let unread = Present { fingerprint: None, ..present("f") };
        assert_eq!(verdict(&[unread]), Verdict::Changed);
        let late = Present { seen_all: false, ..present("f") };
        assert_eq!(verdict(&[late]), Verdict::Unwatched);
        let with = |unproven| {
            let unproven = vec![unproven];
            Present {
                fingerprint: Some(Fingerprint { hash: "f".to_owned(), unproven }),
                ..present("f")
            }
        };
        assert_eq!(verdict(&[with(range(0, 9 * MIB))]), Verdict::Unproven);
        let swap = verdict(&[with(range(20 * MIB, 60 * MIB))]);
        assert_eq!(swap, Verdict::Counts { at: 0, dirty: vec![range(0, 4096)] });
        let counted = verdict(&[with(range(MIB, 2 * MIB))]);
        let dirty = vec![range(0, 4096), range(MIB, 2 * MIB)];
        assert_eq!(counted, Verdict::Counts { at: 0, dirty });
    }
}
