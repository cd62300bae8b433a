//! Salvage: whatever sector rots, every record is either read as it was written or lies in a range
//! that is named as damaged.

use crate::model::{Step, World};
use Step::{Append, Close, Flush, Reopen, TrimBefore};
use landfall_blockdev::sim::Rot;
use landfall_journal::salvage::salvage;
use landfall_journal::{JournalError, Log};
use landfall_types::Lsn;
use std::collections::BTreeMap;

const SECTOR: u64 = 512;

/// A log of several segments whose end is known, with all its payloads.
fn world() -> (World, BTreeMap<Lsn, bytes::Bytes>) {
    let mut world = World::new(31, None);
    world.create().expect("create");
    let steps =
        [Append(20), Flush, Reopen, Append(25), Flush, TrimBefore(30), Append(30), Flush, Close];
    for step in steps {
        world.step(step).expect("step");
    }
    let log = world.log();
    let entries = log.entries(log.base().0, log.tail().lsn).expect("entries");
    let payloads = entries.iter().map(|e| (e.header.lsn, log.read(e).expect("intact"))).collect();
    (world, payloads)
}

#[test]
fn a_sound_log_is_salvaged_whole() {
    let (world, payloads) = world();
    let mut found = salvage(&*world.medium.root()).expect("salvaged");
    let mut heard = 0;
    found.verify(|bytes| heard = bytes).expect("read");
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
    assert_eq!(found.log, Some(world.log().id()));
    assert_eq!(found.replica, Some(world.log().replica()));
    assert_eq!(found.records().len(), payloads.len());
    assert_eq!(heard, payloads.values().map(|bytes| bytes.len() as u64).sum::<u64>());
}

#[test]
fn every_record_is_read_as_it_was_or_named_as_damaged() {
    let (world, payloads) = world();
    let mut after_damage = 0;
    for (path, length) in world.medium.files() {
        for sector in 0..length / SECTOR {
            for rot in [Rot::Flip(77), Rot::Zero, Rot::Garbage, Rot::Misdirected(SECTOR)] {
                let medium = world.medium.fork();
                medium.rot(&path, sector * SECTOR, rot);
                let place = format!("{path} sector {sector} {rot:?}");
                let mut found = salvage(&*medium.root()).expect(&place);
                found.verify(|_| {}).expect(&place);
                let read: BTreeMap<Lsn, bytes::Bytes> = found
                    .records()
                    .iter()
                    .map(|record| (record.header.lsn, found.read(record).expect("verified")))
                    .collect();
                for (lsn, payload) in &payloads {
                    let named = found.damaged.iter().any(|d| d.first <= *lsn && *lsn <= d.last);
                    match read.get(lsn) {
                        Some(bytes) => assert!(bytes == payload && !named, "{place}: {lsn}"),
                        None => assert!(named, "{place}: {lsn} is missing: {:?}", found.damaged),
                    }
                }
                assert!(read.keys().all(|lsn| payloads.contains_key(lsn)), "{place}: invented");
                let last = *payloads.keys().next_back().expect("records");
                if let Some(damage) = found.damaged.first()
                    && damage.last < last
                {
                    after_damage += 1;
                }
            }
        }
    }
    assert!(after_damage > 0, "nothing was read behind any damage");
}

/// Both copies of the superblock have gone: the segments tell.
#[test]
fn a_log_without_superblock_is_salvaged() {
    let (world, payloads) = world();
    let medium = world.medium.fork();
    medium.root().remove("superblock").expect("removed");
    assert!(matches!(Log::open(medium.root()), Err(JournalError::Corrupt { .. })));
    let mut found = salvage(&*medium.root()).expect("salvaged");
    found.verify(|_| {}).expect("read");
    assert_eq!(found.log, Some(world.log().id()));
    assert_eq!(found.replica, None);
    // Segments that were trimmed before may still be readable: more is found, never less.
    for lsn in payloads.keys() {
        assert!(found.records().iter().any(|record| record.header.lsn == *lsn), "{lsn}");
    }
}

/// What was never proven durable is a torn tail, not damage.
#[test]
fn a_torn_tail_is_no_damage() {
    let mut world = World::new(32, None);
    world.create().expect("create");
    for step in [Append(4), Flush, Append(3)] {
        world.step(step).expect("step");
    }
    world.log().write_every_other_frame().expect("written");
    let found = salvage(&*world.medium.fork_durable().root()).expect("salvaged");
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
}
