//! Rot (fault F3, promise P5): whatever sector rots, what is read is what was written, or the log
//! says that it is corrupt.

use crate::model::{Promise, Step, World, config};
use Step::{Append, Close, Flush, TrimBefore};
use landfall_blockdev::sim::{Rot, SimMedium};
use landfall_journal::{JournalError, Log, SeededBug};
use landfall_types::Lsn;

const SECTOR: u64 = 512;

/// Each sector of each file rots, in each way, on a log whose last group but one is durable beyond
/// doubt.
pub(crate) fn every_sector(steps: &[Step], bug: Option<SeededBug>) -> [u32; 3] {
    rot_everywhere(World::new(21, bug), steps)
}

pub(crate) fn rot_everywhere(mut world: World, steps: &[Step]) -> [u32; 3] {
    world.create().expect("create");
    for step in steps {
        world.step(*step).expect("step");
    }
    let mut outcomes = [0; 3];
    for (path, length) in world.medium.files() {
        for sector in 0..length / SECTOR {
            for rot in [
                Rot::Flip(0),
                Rot::Flip(77),
                Rot::Flip(400),
                Rot::Zero,
                Rot::Garbage,
                Rot::Misdirected(SECTOR),
            ] {
                let medium = world.medium.fork();
                medium.rot(&path, sector * SECTOR, rot);
                let outcome = outcome(&world, &medium, &format!("{path} sector {sector} {rot:?}"));
                outcomes[outcome as usize] += 1;
            }
        }
    }
    outcomes
}

enum Outcome {
    /// Everything is as it was.
    Exact = 0,
    /// The log says that it is corrupt, at opening or when the record is read.
    Corrupt = 1,
    /// The end is missing, and nothing proves that it was there: the sender knows, and closes the
    /// gap.
    ShorterEnd = 2,
}

fn outcome(world: &World, medium: &SimMedium, place: &str) -> Outcome {
    let before = world.log();
    let log = match Log::open_with_bug(medium.root(), world.bug) {
        Ok((log, _)) => log,
        Err(JournalError::Corrupt { .. }) => return Outcome::Corrupt,
        Err(error) => panic!("{place}: {error}"),
    };
    let (tail, base) = (log.tail(), log.base());
    assert_eq!(base, before.base(), "{place}");
    assert_eq!(
        before.position_at(tail.lsn).expect("readable").map(|p| p.chain),
        Some(tail.chain),
        "{place}"
    );
    let mut corrupt = false;
    for entry in log.entries(base.0, tail.lsn).expect("entries") {
        match log.read(&entry) {
            Ok(bytes) => assert_eq!(bytes, before.read(&entry).expect("intact"), "{place}"),
            Err(JournalError::Corrupt { lsn, .. }) => {
                assert_eq!(lsn, entry.header.lsn, "{place}");
                corrupt = true;
            }
            Err(error) => panic!("{place}: {error}"),
        }
    }
    if tail == before.tail() {
        return if corrupt { Outcome::Corrupt } else { Outcome::Exact };
    }
    // Only the last group can be missing: every frame of a later group proves the ones before
    // durable.
    let durable: Vec<Lsn> = world
        .promises
        .iter()
        .filter_map(|promise| match promise {
            Promise::Durable(position) => Some(position.lsn),
            _ => None,
        })
        .collect();
    let last = before.tail().lsn;
    let proven = durable.iter().copied().filter(|lsn| *lsn < last).max().unwrap_or(config(1).base);
    assert!(tail.lsn >= proven, "{place}: durable records were cut off silently");
    Outcome::ShorterEnd
}

#[test]
fn rot_is_never_served_and_never_cuts_what_was_durable() {
    let [exact, corrupt, shorter] = every_sector(
        &[Append(20), Flush, Append(25), Flush, TrimBefore(22), Append(3), Flush, Append(2), Flush],
        None,
    );
    eprintln!("exact {exact}, corrupt {corrupt}, shorter end {shorter}");
    assert!(exact > 0 && corrupt > 0 && shorter > 0);
}

/// After a clean end the superblock knows where the log ends: not even the last frame can go
/// missing unnoticed.
#[test]
fn after_a_clean_end_nothing_goes_missing_unnoticed() {
    let [_, corrupt, shorter] = every_sector(&[Append(5), Flush, Append(3), Close], None);
    assert_eq!(shorter, 0);
    assert!(corrupt > 0);
}

/// Everything that a segment file can lose: the file itself.
#[test]
fn a_missing_segment_file_is_corruption() {
    let mut world = World::new(22, None);
    world.create().expect("create");
    for step in [Append(60), Flush] {
        world.step(step).expect("step");
    }
    let segments = world.log().stat().segments.len();
    assert!(segments > 2);
    let mut corrupt = 0;
    for (path, _) in world.medium.files() {
        let medium = world.medium.fork();
        medium.root().remove(&path).expect("remove");
        match Log::open(medium.root()) {
            Err(JournalError::Corrupt { .. }) => corrupt += 1,
            // The last segment alone can't be missed: nothing says that it was there. Its records
            // were durable when the next one's header was written, and there is none.
            Ok((log, _)) => assert!(log.tail().lsn < world.log().tail().lsn, "{path}"),
            Err(error) => panic!("{path}: {error}"),
        }
    }
    assert_eq!(corrupt, segments, "all files but the last segment: {:?}", world.medium.files());
}
