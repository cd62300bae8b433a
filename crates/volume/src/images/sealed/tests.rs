//! A sealed image against a plain one, over power cuts and rot.

use super::{BLOCK_BYTES, SealedImage, raw_bytes};
use landfall_blockdev::sim::{CutOptions, Rot, SimMedium, for_each_power_cut};
use landfall_blockdev::{BlockDevice, DeviceError, DiskFile};
use landfall_crypt::{DataKey, Secret};
use landfall_testkit::{Rng, seed};
use std::sync::Arc;

/// Not a multiple of a block; seals on two pages.
const SIZE: u64 = 150 * BLOCK_BYTES + 512;
/// For what is done over and over.
const SMALL: u64 = 10 * BLOCK_BYTES + 512;
const SECTOR: u64 = 512;

fn key() -> DataKey {
    DataKey::new(&Secret::take(&mut [3; 32]))
}

fn raw(medium: &SimMedium) -> Arc<dyn BlockDevice> {
    Arc::new(DiskFile::open(&*medium.root(), "disk", 512).expect("there"))
}

fn open(medium: &SimMedium) -> Result<SealedImage, DeviceError> {
    SealedImage::open(&*medium.root(), &key(), 0, raw(medium), "disk")
}

fn create(size: u64) -> (SimMedium, SealedImage) {
    let medium = SimMedium::new(512);
    let dir = medium.root();
    DiskFile::create(&*dir, "disk", raw_bytes(size), 512).expect("made");
    SealedImage::create(&*dir, &key(), 0, size).expect("made");
    dir.sync().expect("synced");
    let image = open(&medium).expect("opened");
    (medium, image)
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).expect("small")
}

/// One change: where, how long, and what; no bytes: zeroes.
#[derive(Clone)]
struct Change {
    at: u64,
    length: u64,
    fill: u8,
}

impl Change {
    fn random(rng: &mut Rng, size: u64) -> Self {
        let sectors = size / SECTOR;
        let at = rng.below(sectors);
        let most = if rng.one_in(3) { 400 } else { 20 };
        let length = (1 + rng.below(most)).min(sectors - at);
        let fill = if rng.one_in(4) { 0 } else { 1 + rng.below(255) as u8 };
        Self { at: at * SECTOR, length: length * SECTOR, fill }
    }

    fn data(&self) -> Vec<u8> {
        // Every sector differs from its neighbors.
        (0..self.length).map(|n| self.fill.wrapping_add((n / SECTOR) as u8) | 1).collect()
    }

    fn apply(&self, image: &dyn BlockDevice, oracle: &mut [u8]) {
        let range = bytes(self.at)..bytes(self.at + self.length);
        if self.fill == 0 {
            image.zero(self.at, self.length).expect("zeroed");
            oracle[range].fill(0);
        } else {
            image.write_at(self.at, &self.data()).expect("written");
            oracle[range].copy_from_slice(&self.data());
        }
    }
}

fn content(image: &dyn BlockDevice) -> Vec<u8> {
    let mut buf = vec![1; bytes(image.size())];
    image.read_at(0, &mut buf).expect("read");
    buf
}

#[test]
fn a_sealed_image_reads_as_it_was_written() {
    let (medium, mut image) = create(SIZE);
    assert_eq!(image.size(), SIZE);
    let mut rng = Rng::new(seed("a_sealed_image_reads_as_it_was_written"));
    let mut oracle = vec![0; bytes(SIZE)];
    for round in 0..200 {
        Change::random(&mut rng, SIZE).apply(&image, &mut oracle);
        if rng.one_in(5) {
            image.flush().expect("flushed");
        }
        if round % 10 == 0 {
            assert!(content(&image) == oracle, "round {round}");
            image.flush().expect("flushed");
            image = open(&medium).expect("opened");
            assert!(content(&image) == oracle, "round {round}, opened again");
        }
        let at = rng.below(SIZE - 1);
        let mut part = vec![0; bytes((1 + rng.below(9000)).min(SIZE - at))];
        image.read_at(at, &mut part).expect("read");
        assert!(part[..] == oracle[bytes(at)..][..part.len()]);
    }
    let mut raw_content = vec![0; bytes(raw_bytes(SIZE))];
    raw(&medium).read_at(0, &mut raw_content).expect("read");
    let written: Vec<_> = oracle.chunks(16).filter(|c| c.iter().any(|b| *b != 0)).collect();
    assert!(written.len() > 100);
    for needle in written.iter().step_by(97) {
        assert!(!raw_content.chunks(16).any(|found| found == *needle), "plain text in the file");
    }
}

#[test]
fn a_sealed_image_grows_with_its_disk() {
    let (medium, image) = create(SIZE);
    image.write_at(SIZE - 512, &[7; 512]).expect("written");
    let size = 13 << 30;
    medium.root().open("disk").and_then(|file| file.set_len(raw_bytes(SIZE * 2))).expect("grown");
    image.grow(raw(&medium), SIZE * 2).expect("grown");
    image.write_at(2 * SIZE - 512, &[8; 512]).expect("written");
    image.flush().expect("flushed");
    for image in [image, open(&medium).expect("opened")] {
        let all = content(&image);
        assert_eq!(all.len() as u64, SIZE * 2);
        assert_eq!(all[bytes(SIZE) - 512..bytes(SIZE)], [7; 512]);
        assert!(all[bytes(SIZE)..bytes(2 * SIZE) - 512].iter().all(|byte| *byte == 0));
        assert_eq!(all[bytes(2 * SIZE) - 512..], [8; 512]);
    }
    // More than one map has room for.
    assert_eq!(super::pages::maps(size).count(), 2);
}

/// What the image promises its users (a fold, a first copy, an undo): after a cut everything that
/// they have not written since the last flush is as it was, and when they have written the rest
/// again, in whatever pieces, all is as it should be.
#[test]
fn a_power_cut_loses_nothing_that_is_not_written_again() {
    let mut rng = Rng::new(seed("a_power_cut_loses_nothing_that_is_not_written_again"));
    let mut cuts = 0;
    for _ in 0..2 {
        let (medium, image) = create(SMALL);
        let mut oracle = vec![0; bytes(SMALL)];
        // By the number of flushes: content then, and the changes behind.
        let mut states = vec![(oracle.clone(), vec![])];
        for _ in 0..8 {
            Change::random(&mut rng, SMALL).apply(&image, &mut oracle);
        }
        image.flush().expect("flushed");
        states[0].0.clone_from(&oracle);
        medium.restart_trace();
        for _ in 0..2 {
            for _ in 0..3 {
                let change = Change::random(&mut rng, SMALL);
                change.apply(&image, &mut oracle);
                states.last_mut().expect("one").1.push(change);
            }
            image.flush().expect("flushed");
            medium.promise();
            states.push((oracle.clone(), vec![]));
        }
        let quick = CutOptions { masks_random: 3, exhaustive_max: 2, ..CutOptions::QUICK };
        let stat = for_each_power_cut(&medium.trace(), quick, |cut| {
            let image = open(&cut.medium).expect("opened");
            // A cut in the flush itself leaves the state before or behind it.
            let (before, changes) = &states[cut.promises];
            check_untouched(&image, before, changes);
            let mut again = before.clone();
            for change in changes {
                // In other pieces than the first time.
                for piece in change.in_two() {
                    piece.apply(&image, &mut again);
                }
            }
            assert!(content(&image) == again, "step {}", cut.step);
            image.flush().expect("flushed");
            assert!(content(&open(&cut.medium).expect("opened")) == again, "step {}", cut.step);
        });
        cuts += stat.cuts;
    }
    assert!(cuts > 200, "{cuts}");
}

impl Change {
    fn in_two(&self) -> Vec<PieceOf<'_>> {
        let middle = self.length / SECTOR / 2 * SECTOR;
        [(0, middle), (middle, self.length)]
            .into_iter()
            .filter(|(from, to)| from < to)
            .map(|(from, to)| PieceOf { change: self, from, to })
            .collect()
    }
}

struct PieceOf<'a> {
    change: &'a Change,
    from: u64,
    to: u64,
}

impl PieceOf<'_> {
    fn apply(&self, image: &dyn BlockDevice, oracle: &mut [u8]) {
        let at = self.change.at + self.from;
        let range = bytes(at)..bytes(self.change.at + self.to);
        if self.change.fill == 0 {
            image.zero(at, self.to - self.from).expect("zeroed");
            oracle[range].fill(0);
        } else {
            let data = &self.change.data()[bytes(self.from)..bytes(self.to)];
            image.write_at(at, data).expect("written");
            oracle[range].copy_from_slice(data);
        }
    }
}

fn check_untouched(image: &SealedImage, before: &[u8], changes: &[Change]) {
    for sector in 0..SMALL / SECTOR {
        let at = sector * SECTOR;
        if changes.iter().any(|c| c.at < at + SECTOR && at < c.at + c.length) {
            continue;
        }
        let mut buf = [0; 512];
        image.read_at(at, &mut buf).expect("it was not being written");
        assert!(buf[..] == before[bytes(at)..][..512], "sector {sector}");
    }
}

/// Whatever sector rots, in the image, its seals or the intent: what is read is what was written,
/// or an error says where; and writing whole blocks makes it good.
#[test]
fn rot_is_never_served_and_can_be_overwritten() {
    let (medium, image) = create(SIZE);
    let mut rng = Rng::new(7);
    let mut oracle = vec![0; bytes(SIZE)];
    for _ in 0..5 {
        Change::random(&mut rng, SIZE).apply(&image, &mut oracle);
    }
    image.flush().expect("flushed");
    let (mut exact, mut refused) = (0, 0);
    for (path, length) in medium.files() {
        for sector in (0..length / SECTOR).step_by(if path == "disk" { 37 } else { 3 }) {
            for rot in [Rot::Flip(300), Rot::Zero, Rot::Garbage, Rot::Misdirected(4096)] {
                let medium = medium.fork();
                medium.rot(&path, sector * SECTOR, rot);
                let image = open(&medium).expect("opened");
                let mut bad = 0;
                for (block, expected) in oracle.chunks(4096).enumerate() {
                    let mut buf = vec![0; expected.len()];
                    match image.read_at(block as u64 * 4096, &mut buf) {
                        Ok(()) => assert!(buf == expected, "{path} {sector} {rot:?} {block}"),
                        Err(DeviceError::Unauthentic { offset, .. }) => {
                            assert_eq!(offset, block as u64 * 4096);
                            bad += 1;
                        }
                        Err(error) => panic!("{path} {sector} {rot:?}: {error}"),
                    }
                }
                if bad == 0 {
                    exact += 1;
                } else {
                    refused += 1;
                    image.write_at(0, &oracle).expect("written");
                    image.flush().expect("flushed");
                    assert!(content(&image) == oracle);
                    assert!(content(&open(&medium).expect("opened")) == oracle);
                }
            }
        }
    }
    assert!(exact > 10 && refused > 15, "{exact} {refused}");
}

/// A sector that is written into a block that has rotted is there; the rest of the block stays
/// lost, also after it was made durable.
#[test]
fn the_rest_of_a_rotten_block_stays_lost() {
    let (medium, image) = create(SIZE);
    image.write_at(8192, &[5; 4096]).expect("written");
    image.flush().expect("flushed");
    medium.rot("disk", 8192, Rot::Flip(3));
    // The intent still has the block, if it was written in part. It was not.
    let image = open(&medium).expect("opened");
    image.write_at(8192 + 1024, &[6; 512]).expect("written");
    image.flush().expect("flushed");
    for image in [image, open(&medium).expect("opened")] {
        let mut sector = [0; 512];
        image.read_at(8192 + 1024, &mut sector).expect("it was written");
        assert_eq!(sector, [6; 512]);
        for lost in [8192, 8192 + 512, 8192 + 3584] {
            let read = image.read_at(lost, &mut sector);
            assert!(matches!(read, Err(DeviceError::Unauthentic { offset: 8192, .. })), "{read:?}");
        }
    }
}

#[test]
fn another_key_or_disk_reads_nothing() {
    let (medium, image) = create(SIZE);
    image.write_at(0, &[5; 8192]).expect("written");
    image.flush().expect("flushed");
    let other = DataKey::new(&Secret::take(&mut [4; 32]));
    let image = SealedImage::open(&*medium.root(), &other, 0, raw(&medium), "disk").expect("open");
    let read = image.read_at(0, &mut [0; 512]);
    assert!(matches!(read, Err(DeviceError::Unauthentic { .. })), "{read:?}");
}
