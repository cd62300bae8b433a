//! On a volume that a store has made, with no server and no master target.

use super::*;
use crate::args::{Cli, Command};
use crate::exit::Status;
use bytes::Bytes;
use clap::Parser as _;
use landfall_blockdev::{BlockDevice as _, FsDir, OpenMode};
use landfall_types::{
    Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation, InstanceId,
    Lineage, Lsn, MachineId, Record, RetentionPolicy, WindowClose, WindowId, WindowMode,
    WindowOpen, WindowReason,
};
use landfall_volume::{
    Frame, FsImages, ImageOwner, OldContent, Qcow2Device, ReplicaConfig, ReplicaDisk,
};
use std::collections::BTreeMap;
use std::path::Path;

const SIZE: u64 = 3 << 20;

fn config(folder: &Path) -> ReplicaConfig {
    let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
    ReplicaConfig {
        replica: ReplicaId::from_bytes([1; 16]),
        machine: MachineId::from_bytes([2; 16]),
        machine_name: "web-1".into(),
        instance: InstanceId::from_bytes([3; 16]),
        disks: vec![ReplicaDisk {
            index: DiskIndex(0),
            id: DiskId::from_bytes([4; 16]),
            geometry: DiskGeometry { size_bytes: SIZE, sector_bytes: 512 },
            image: folder.join("images/web-1-0").to_string_lossy().into_owned(),
            owner: ImageOwner::Ours,
        }],
        lineage: Lineage::root(epoch),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        old_content: OldContent::Expendable,
        retention: RetentionPolicy::default(),
        segment_bytes: 1 << 20,
        encryption: None,
    }
}

/// A volume with one replica: LSN 4 is in the image, LSN 5 in the journal. Returns what the disk
/// holds at both.
fn volume(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let dir = Arc::new(FsDir::open_or_create(folder.join("retention")).unwrap());
    let vault = Vault::open(dir, Arc::new(FsImages), 1 << 20).unwrap();
    let config = config(folder);
    let window = WindowId(1);
    let open = Control::WindowOpen(WindowOpen {
        window,
        reason: WindowReason::Requested,
        mode: WindowMode::Copy,
        disks: vec![0],
        into_image: false,
    });
    let close = Control::WindowClose(WindowClose { window, exact: true });
    let write = |lsn, offset, fill| {
        Record::write(Lsn::new(lsn), DiskIndex(0), offset, Bytes::from(vec![fill; 8192]))
    };
    let records = [
        Record::control(Lsn::new(1), &open),
        write(2, 0, 1),
        Record::control(Lsn::new(3), &close),
        write(4, 1 << 20, 2),
        write(5, 4096, 3),
    ];
    let replica = vault.create(config.clone()).unwrap();
    let frame = Frame {
        epoch: config.lineage.epoch(),
        incarnation: Incarnation::new(9),
        source_position: 0,
        chain_before: Chain::ROOT,
        records: &records,
    };
    replica.ingest(frame).unwrap();
    replica.flush().unwrap();
    replica.fold(Lsn::new(4)).unwrap();
    let mut before = vec![0; usize::try_from(SIZE).unwrap()];
    before[..8192].fill(1);
    before[1 << 20..][..8192].fill(2);
    let mut after = before.clone();
    after[4096..12_288].fill(3);
    (before, after)
}

fn run(words: &[&str]) -> Result<(), Failure> {
    let cli = Cli::try_parse_from([&["landfall", "vault"], words].concat()).unwrap();
    let Command::Vault(command) = cli.command else { panic!("a vault command") };
    vault(&command, Format::Json)
}

/// Every file beneath, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_disk_is_exported_at_any_point_and_the_volume_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let (before, after) = volume(temp.path());
    let retention = temp.path().join("retention");
    let path = retention.to_str().unwrap();
    let kept = files(&retention);
    run(&["inspect", path]).unwrap();
    let to = |name: &str| temp.path().join(name).to_string_lossy().into_owned();
    run(&["export", path, "--machine", "web-1", "--to", &to("newest")]).unwrap();
    assert!(std::fs::read(to("newest")).unwrap() == after);
    run(&["export", path, "--machine", "web-1", "--at-lsn", "4", "--to", &to("b.qcow2")]).unwrap();
    let copy = Qcow2Device::open(Path::new(&to("b.qcow2")), OpenMode::ReadOnly).unwrap();
    let mut found = vec![0; before.len()];
    copy.read_at(0, &mut found).unwrap();
    assert!(found == before);
    assert!(std::fs::metadata(to("b.qcow2")).unwrap().len() < SIZE / 2, "holes are left out");
    assert!(files(&retention) == kept, "looking changes nothing");
    let exists = run(&["export", path, "--machine", "web-1", "--to", &to("newest")]);
    assert!(exists.unwrap_err().to_string().contains("exists"));
    let unknown = run(&["export", path, "--machine", "db", "--to", &to("db")]).unwrap_err();
    assert!(unknown.render(Format::Table).contains("not-found"), "{unknown}");
}

#[test]
fn what_is_damaged_is_named_and_what_is_in_use_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    volume(temp.path());
    let retention = temp.path().join("retention");
    let path = retention.to_str().unwrap();
    let held = claim_retention_volume(&retention).unwrap();
    let refused = run(&["inspect", path]).unwrap_err();
    assert!(refused.render(Format::Table).contains("retention-unfit"), "{refused}");
    drop(held);
    for (file, content) in files(&retention) {
        if file.to_string_lossy().contains("superblock") {
            let rotten: Vec<u8> = content.iter().map(|byte| byte ^ 0x10).collect();
            std::fs::write(&file, rotten).unwrap();
        }
    }
    let damaged = run(&["inspect", path]).unwrap_err();
    assert_eq!(damaged.status(), Status::Corrupt);
    let empty = temp.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let none = run(&["inspect", empty.to_str().unwrap()]).unwrap_err();
    assert!(none.to_string().contains("no retention volume"), "{none}");
    assert!(files(&empty).is_empty(), "an empty directory stays one");
}
