//! One suite for every [`Dir`]: what the journal is proven on (the simulated medium) must behave as
//! what it runs on.

use landfall_blockdev::sim::SimMedium;
use landfall_blockdev::{AlignedBuf, DeviceError, Dir, FsDir, NAME_BYTES_MAX, OverlayDir};
use std::sync::Arc;

fn suite(dir: &dyn Dir) {
    names(dir);
    bytes(dir);
    lengths(dir);
    aligned_and_unaligned(dir);
    subdirs(dir);
    handles_outlive_names(dir);
    for name in dir.list().expect("list") {
        dir.remove(&name).expect("remove");
    }
}

fn names(dir: &dyn Dir) {
    dir.create("b").expect("create");
    dir.create("a").expect("create");
    assert_eq!(dir.list().expect("list"), ["a", "b"]);
    assert!(matches!(dir.create("a"), Err(DeviceError::Exists { .. })));
    assert!(matches!(dir.open("c"), Err(DeviceError::NotFound { .. })));
    assert!(matches!(dir.remove("c"), Err(DeviceError::NotFound { .. })));
    assert!(matches!(dir.rename("c", "d"), Err(DeviceError::NotFound { .. })));
    dir.open("a").and_then(|file| file.write_at(0, b"from a")).expect("write");
    dir.rename("a", "b").expect("rename");
    assert_eq!(dir.list().expect("list"), ["b"]);
    let mut buf = [0; 6];
    dir.open("b").and_then(|file| file.read_at(0, &mut buf)).expect("read");
    assert_eq!(&buf, b"from a");
    dir.remove("b").expect("remove");
    dir.sync().expect("sync");
    for bad in ["", ".", "..", "a/b", "a\0b", &"n".repeat(NAME_BYTES_MAX + 1)] {
        assert!(matches!(dir.create(bad), Err(DeviceError::BadName { .. })), "{bad:?}");
        assert!(matches!(dir.subdir(bad), Err(DeviceError::BadName { .. })), "{bad:?}");
    }
    dir.create(&"n".repeat(NAME_BYTES_MAX)).expect("the longest name");
    dir.remove(&"n".repeat(NAME_BYTES_MAX)).expect("remove");
}

fn bytes(dir: &dyn Dir) {
    let file = dir.create("bytes").expect("create");
    assert!(file.is_empty().expect("len"));
    file.write_at(1000, b"hello").expect("write behind the end");
    assert_eq!(file.len().expect("len"), 1005);
    let mut buf = [1; 8];
    file.read_at(997, &mut buf).expect("read");
    assert_eq!(&buf, b"\0\0\0hello");
    assert!(matches!(file.read_at(998, &mut buf), Err(DeviceError::OutOfRange { size: 1005, .. })));
    assert!(matches!(
        file.read_at(u64::MAX, &mut buf[..1]),
        Err(DeviceError::OutOfRange { .. } | DeviceError::Io { .. })
    ));
    file.write_at(1002, b"LP").expect("overwrite");
    file.sync_data().expect("sync");
    file.read_at(1000, &mut buf[..5]).expect("read");
    assert_eq!(&buf[..5], b"heLPo");
    file.read_at(0, &mut []).expect("an empty read");
    file.write_at(0, &[]).expect("an empty write");
    let other = dir.open("bytes").expect("a second handle");
    other.read_at(1000, &mut buf[..5]).expect("read");
    assert_eq!(&buf[..5], b"heLPo");
}

fn lengths(dir: &dyn Dir) {
    let file = dir.create("lengths").expect("create");
    file.allocate(0, 20_000).expect("allocate");
    assert_eq!(file.len().expect("len"), 20_000);
    let mut buf = vec![1; 20_000];
    file.read_at(0, &mut buf).expect("read");
    assert!(buf.iter().all(|byte| *byte == 0), "allocated space reads as zeroes");
    file.write_at(0, &vec![7; 20_000]).expect("write");
    file.allocate(0, 10_000).expect("allocate what is there");
    assert_eq!(file.len().expect("len"), 20_000, "allocate never cuts");
    file.punch(100, 15_000).expect("punch");
    assert_eq!(file.len().expect("len"), 20_000);
    file.read_at(0, &mut buf).expect("read");
    assert!(buf[..100].iter().all(|byte| *byte == 7));
    assert!(buf[100..15_100].iter().all(|byte| *byte == 0));
    assert!(buf[15_100..].iter().all(|byte| *byte == 7));
    assert!(matches!(file.punch(100, 20_000), Err(DeviceError::OutOfRange { .. })));
    file.set_len(150).expect("cut");
    file.set_len(20_000).expect("extend");
    file.read_at(0, &mut buf).expect("read");
    assert!(buf[100..].iter().all(|byte| *byte == 0), "what was cut off does not come back");
    file.sync_data().expect("sync");
}

/// Aligned transfers take another path in the kernel than unaligned ones; they must see each
/// other's bytes.
fn aligned_and_unaligned(dir: &dyn Dir) {
    let file = dir.create("mixed").expect("create");
    file.allocate(0, 64 << 10).expect("allocate");
    let mut expected = vec![0_u8; 64 << 10];
    let mut aligned = AlignedBuf::zeroed(8192);
    for round in 1..=8_u8 {
        aligned.fill(round);
        let at = usize::from(round % 4) * 8192;
        file.write_at(at as u64, &aligned).expect("aligned write");
        expected[at..at + 8192].fill(round);
        let at = usize::from(round) * 5001;
        file.write_at(at as u64, &[0x80 | round; 777]).expect("unaligned write");
        expected[at..at + 777].fill(0x80 | round);
        let mut found = vec![0; 64 << 10];
        file.read_at(0, &mut found).expect("read");
        assert!(found == expected, "round {round}");
        aligned.fill(0);
        file.read_at(8192, &mut aligned).expect("aligned read");
        assert!(aligned[..] == expected[8192..16384], "round {round}");
    }
    let parts: Vec<AlignedBuf> = (1..=20_u8)
        .map(|fill| {
            let mut part = AlignedBuf::zeroed(4096);
            part.fill(fill);
            part
        })
        .collect();
    for (offset, last) in [(0, 20), (4096, 20), (100, 3)] {
        let slices: Vec<&[u8]> = parts[..last].iter().map(|part| &part[..]).collect();
        file.write_all_at(offset, &slices).expect("write parts");
        let mut found = vec![0; last * 4096];
        file.read_at(offset, &mut found).expect("read");
        assert!(found == slices.concat(), "parts at {offset}");
    }
    file.write_all_at(0, &[]).expect("no parts");
    file.set_len(64 << 10).expect("back to its length");
    let mut beyond = AlignedBuf::zeroed(128 << 10);
    assert!(matches!(file.read_at(0, &mut beyond), Err(DeviceError::OutOfRange { .. })));
}

fn subdirs(dir: &dyn Dir) {
    let sub = dir.subdir("sub").expect("subdir");
    sub.create("inner").expect("create");
    sub.subdir("deeper").and_then(|deeper| deeper.create("leaf")).expect("create");
    assert_eq!(dir.subdir("sub").and_then(|again| again.list()).expect("list"), ["inner"]);
    assert_eq!(dir.list_subdirs().expect("list"), ["sub"]);
    assert!(!dir.list().expect("list").contains(&"sub".to_owned()));
    dir.sync().expect("sync");
    dir.remove_subdir("sub").expect("remove");
    assert!(matches!(dir.remove_subdir("sub"), Err(DeviceError::NotFound { .. })));
    assert!(dir.list_subdirs().expect("list").is_empty());
    assert!(dir.subdir("sub").and_then(|fresh| fresh.list()).expect("list").is_empty());
    dir.remove_subdir("sub").expect("remove");
}

/// A reader may hold a segment that trimming has removed.
fn handles_outlive_names(dir: &dyn Dir) {
    let file = dir.create("gone").expect("create");
    file.write_at(0, b"still").expect("write");
    dir.remove("gone").expect("remove");
    let mut buf = [0; 5];
    file.read_at(0, &mut buf).expect("read");
    assert_eq!(&buf, b"still");
}

#[test]
fn sim_dir_conforms() {
    for sector_bytes in [512, 4096] {
        let medium = SimMedium::new(sector_bytes);
        suite(&*medium.root());
        suite(&*medium.root().subdir("within").expect("subdir"));
    }
}

#[test]
fn fs_dir_conforms() {
    let temp = tempfile::tempdir().expect("tempdir");
    suite(&FsDir::open(temp.path()).expect("open"));
    let nested = FsDir::open_or_create(temp.path().join("a/b/c")).expect("create");
    suite(&nested);
    assert!(nested.free_bytes().expect("statvfs").is_some_and(|bytes| bytes > 0));
    assert!([512, 4096].contains(&nested.sector_bytes()));
    assert!(matches!(FsDir::open(temp.path().join("none")), Err(DeviceError::NotFound { .. })));
}

/// A directory that is only looked at behaves as one that is written, and stays as it was.
#[test]
fn overlay_dir_conforms_and_changes_nothing() {
    let temp = tempfile::tempdir().expect("tempdir");
    suite(&OverlayDir::open(temp.path()).expect("open"));
    let beneath = FsDir::open(temp.path()).expect("open");
    assert!(
        beneath.list().expect("list").is_empty() && beneath.list_subdirs().expect("").is_empty()
    );
    let file = beneath.create("kept").expect("create");
    file.write_at(0, &[7; 10_000]).expect("write");
    beneath.subdir("sub").and_then(|sub| sub.create("inner")).expect("create");
    let over = OverlayDir::open(temp.path()).expect("open");
    let kept = over.open("kept").expect("open");
    kept.write_at(4000, &[9; 200]).expect("write");
    kept.set_len(4500).and_then(|()| kept.set_len(12_000)).expect("cut and extend");
    let mut found = vec![1; 12_000];
    over.open("kept").and_then(|again| again.read_at(0, &mut found)).expect("read");
    let expected = [&[7; 4000][..], &[9; 200], &[7; 300], &[0; 7500]].concat();
    assert!(found == expected);
    over.remove("kept").expect("remove");
    over.subdir("sub").and_then(|sub| sub.remove("inner")).expect("remove");
    over.remove_subdir("sub").expect("remove");
    assert!(over.list().expect("list").is_empty() && over.list_subdirs().expect("").is_empty());
    let mut found = vec![0; 10_000];
    beneath.open("kept").and_then(|file| file.read_at(0, &mut found)).expect("read");
    assert!(found == [7; 10_000], "what lies beneath is as it was");
    assert_eq!(beneath.list_subdirs().expect("list"), ["sub"]);
}

/// A symbolic link in a log's directory must not lead its writer elsewhere.
#[test]
fn fs_dir_follows_no_symbolic_link() {
    let temp = tempfile::tempdir().expect("tempdir");
    let target = temp.path().join("outside");
    std::fs::write(&target, b"precious").expect("write");
    let dir: Arc<dyn Dir> =
        Arc::new(FsDir::open_or_create(temp.path().join("dir")).expect("create"));
    std::os::unix::fs::symlink(&target, temp.path().join("dir/link")).expect("symlink");
    assert!(dir.open("link").is_err());
    assert!(dir.list().expect("list").is_empty());
}

/// A claim excludes every other one, also through another handle, until it is dropped.
#[test]
fn one_claim_at_a_time() {
    let temp = tempfile::tempdir().expect("tempdir");
    let first = FsDir::open(temp.path()).expect("open");
    let second = FsDir::open(temp.path()).expect("open");
    let claim = first.claim().expect("nobody has it");
    assert!(matches!(second.claim(), Err(DeviceError::Busy { .. })));
    assert!(matches!(first.claim(), Err(DeviceError::Busy { .. })));
    drop(claim);
    second.claim().expect("it was given up");
}
