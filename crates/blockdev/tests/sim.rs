//! The simulated medium itself: an enumerator that misses a cut proves nothing.

use landfall_blockdev::sim::{CutOptions, Fault, FaultPlan, Rot, SimMedium, for_each_power_cut};
use landfall_blockdev::{DeviceError, Dir, File};
use std::collections::BTreeSet;
use std::sync::Arc;

const NO_GARBAGE: CutOptions = CutOptions { garbage: false, ..CutOptions::THOROUGH };

fn content(dir: &dyn Dir, name: &str) -> Option<Vec<u8>> {
    let file = dir.open(name).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().expect("len")).expect("small")];
    file.read_at(0, &mut bytes).expect("read");
    Some(bytes)
}

fn synced_file(medium: &SimMedium, length: u64) -> Arc<dyn File> {
    let dir = medium.root();
    let file = dir.create("f").expect("create");
    file.set_len(length).expect("set_len");
    file.sync_data().expect("sync");
    dir.sync().expect("sync");
    medium.restart_trace();
    file
}

/// Each of three unsynced sectors is old or new on its own: 8 media, before the sync; one, after
/// it.
#[test]
fn unsynced_sectors_are_old_or_new_each_on_its_own() {
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 1536);
    file.write_at(0, &[1; 1536]).expect("write");
    file.sync_data().expect("sync");
    medium.promise();
    let mut before = BTreeSet::new();
    for_each_power_cut(&medium.trace(), NO_GARBAGE, |cut| {
        let bytes = content(&*cut.medium.root(), "f").expect("the file is there");
        let firsts = [bytes[0], bytes[512], bytes[1024]];
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        if cut.promises == 0 {
            before.insert(firsts);
        } else {
            assert_eq!(firsts, [1; 3], "synced and promised, but lost");
        }
    });
    assert_eq!(before.len(), 8);
}

/// Names are lost or kept on their own until the directory is synced; syncing the file does not
/// help.
#[test]
fn unsynced_names_may_be_lost() {
    let medium = SimMedium::new(512);
    let dir = medium.root();
    let file = dir.create("old").expect("create");
    file.write_at(0, b"x").expect("write");
    file.sync_data().expect("sync");
    medium.promise();
    dir.sync().expect("sync");
    medium.promise();
    dir.rename("old", "new").expect("rename");
    medium.promise();
    dir.sync().expect("sync");
    medium.promise();
    let mut seen = vec![BTreeSet::new(); 5];
    for_each_power_cut(&medium.trace(), NO_GARBAGE, |cut| {
        seen[cut.promises].insert(cut.medium.root().list().expect("list"));
    });
    let names = |lists: &[&[&str]]| -> BTreeSet<Vec<String>> {
        lists.iter().map(|list| list.iter().map(|name| (*name).to_owned()).collect()).collect()
    };
    assert_eq!(seen[1], names(&[&[], &["old"]]), "synced file, unsynced name");
    assert_eq!(seen[2], names(&[&["old"], &["new"]]), "a rename is whole or not at all");
    assert_eq!(seen[3], names(&[&["old"], &["new"]]));
    assert_eq!(seen[4], names(&[&["new"]]));
}

#[test]
fn garbage_covers_the_whole_sector_and_nothing_else() {
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 1536);
    file.write_at(700, &[1; 10]).expect("write");
    let mut garbage = 0;
    for_each_power_cut(&medium.trace(), CutOptions::THOROUGH, |cut| {
        let bytes = content(&*cut.medium.root(), "f").expect("the file is there");
        assert!(bytes[..512].iter().chain(&bytes[1024..]).all(|byte| *byte == 0));
        garbage += usize::from(bytes[512..700].iter().any(|byte| *byte != 0));
    });
    assert!(garbage > 0, "a torn sector never held garbage");
}

/// Beyond the exhaustive limit the corners are still all there.
#[test]
fn many_pending_sectors_are_sampled_with_all_corners() {
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 20 * 512);
    for sector in 0..20 {
        file.write_at(sector * 512, &[1; 512]).expect("write");
    }
    let mut seen = BTreeSet::new();
    let stat = for_each_power_cut(&medium.trace(), NO_GARBAGE, |cut| {
        let bytes = content(&*cut.medium.root(), "f").expect("the file is there");
        seen.insert(bytes.chunks(512).fold(0_u32, |mask, sector| mask << 1 | u32::from(sector[0])));
    });
    assert_eq!(stat.pending_max, 20);
    let all = (1_u32 << 20) - 1;
    for bit in 0..20 {
        assert!(seen.contains(&(1 << bit)) && seen.contains(&(all ^ (1 << bit))));
        assert!(seen.contains(&((1 << bit) - 1)) && seen.contains(&(all ^ ((1 << bit) - 1))));
    }
    assert!(seen.contains(&all) && seen.len() > 1000);
}

#[test]
fn faults_hit_the_operation_that_was_named() {
    let plan = |fault, nth, persistent| Some(FaultPlan { fault, nth, persistent });
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 1024);
    medium.fail(plan(Fault::Full, 1, false));
    file.write_at(0, b"a").expect("the first write");
    let full = file.write_at(0, b"b").expect_err("the second write");
    assert!(full.is_full() && medium.fault_fired());
    file.write_at(0, b"c").expect("the third write");
    medium.fail(plan(Fault::Io, 0, true));
    assert!(file.read_at(0, &mut [0]).is_err() && file.read_at(0, &mut [0]).is_err());
    medium.fail(plan(Fault::Short, 0, false));
    assert!(file.write_at(0, &[9; 1024]).is_err());
    medium.fail(None);
    assert_eq!(content(&*medium.root(), "f").map(|bytes| (bytes[511], bytes[512])), Some((9, 0)));
}

/// After a failed sync the handle lies if it is asked again; so it refuses (fault F3).
#[test]
fn failed_sync_poisons_the_handle_and_only_it() {
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 512);
    file.write_at(0, &[1; 512]).expect("write");
    medium.fail(Some(FaultPlan { fault: Fault::Sync, nth: 0, persistent: false }));
    assert!(file.sync_data().is_err());
    assert!(matches!(file.sync_data(), Err(DeviceError::Poisoned { .. })));
    assert!(matches!(file.write_at(0, b"x"), Err(DeviceError::Poisoned { .. })));
    let dir = medium.root();
    let again = dir.open("f").expect("open");
    again.write_at(0, &[2; 512]).and_then(|()| again.sync_data()).expect("a new handle works");
    medium.fail(Some(FaultPlan { fault: Fault::Sync, nth: 0, persistent: false }));
    assert!(dir.sync().is_err());
    assert!(matches!(dir.sync(), Err(DeviceError::Poisoned { .. })));
}

#[test]
fn rot_hits_one_sector() {
    let medium = SimMedium::new(512);
    let file = synced_file(&medium, 1536);
    file.write_at(0, &[1; 512]).expect("write");
    file.sync_data().expect("sync");
    medium.rot("f", 600, Rot::Flip(3));
    medium.rot("f", 1100, Rot::Misdirected(0));
    let bytes = content(&*medium.root(), "f").expect("the file is there");
    assert_eq!(bytes.iter().filter(|byte| **byte == 0x10).count(), 1);
    assert_eq!(bytes[515], 0x10);
    assert_eq!(bytes[1024..], [1; 512]);
    medium.rot("f", 0, Rot::Zero);
    assert_eq!(medium.fork().files(), [("f".to_owned(), 1536)]);
    assert_eq!(content(&*medium.fork_durable().root(), "f").map(|bytes| bytes[0]), Some(0));
}
