//! On a volume that a store has made, with no server and no master target.

use super::*;
use crate::args::{Cli, Command};
use crate::exit::Status;
use bytes::Bytes;
use clap::Parser as _;
use landfall_blockdev::{BlockDevice as _, FsDir, OpenMode};
use landfall_crypt::KeySource;
use landfall_types::{
    Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation, InstanceId,
    Lineage, Lsn, MachineId, Record, RetentionPolicy, WindowClose, WindowId, WindowMode,
    WindowOpen, WindowReason,
};
use landfall_volume::{
    Frame, FsImages, ImageOwner, OldContent, Qcow2Device, ReplicaConfig, ReplicaDisk,
};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
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
    volume_with(folder, None)
}

fn volume_with(folder: &Path, key: Option<&KeySource>) -> (Vec<u8>, Vec<u8>) {
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
    let replica = vault.create_encrypted(config.clone(), key).unwrap();
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

fn key_file(path: &Path, fill: u8) -> String {
    std::fs::write(path, [fill; 32]).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("file:{}", path.display())
}

/// With the binary and the key alone: what is there, a copy of a disk, the log; and the key can be
/// replaced.
#[test]
fn an_encrypted_volume_is_read_with_its_key_and_with_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let key = key_file(&at("key"), 1);
    let (_, after) = volume_with(temp.path(), Some(&KeySource::parse(&key).unwrap()));
    let retention = at("retention");
    let path = retention.to_str().unwrap();
    let export = |to: &str, key: &[&str]| {
        let to = at(to).to_string_lossy().into_owned();
        run(&[&["export", path, "--machine", "web-1", "--to", &to], key].concat())
    };
    export("named", &[]).unwrap();
    assert!(std::fs::read(at("named")).unwrap() == after);
    // The key has another place here.
    std::fs::rename(at("key"), at("moved")).unwrap();
    let moved = format!("file:{}", at("moved").display());
    let away = export("away", &[]).unwrap_err();
    assert!(away.render(Format::Table).contains("key-missing"), "{away}");
    assert!(run(&["inspect", path]).unwrap_err().render(Format::Table).contains("key-missing"));
    let kept = files(&retention);
    export("given", &["--key", &moved]).unwrap();
    assert!(std::fs::read(at("given")).unwrap() == after);
    run(&["inspect", path, "--key", &moved]).unwrap();
    assert!(files(&retention) == kept, "looking changes nothing");
    let wrong = key_file(&at("wrong"), 2);
    let refused = export("wrong-copy", &["--key", &wrong]).unwrap_err();
    assert!(refused.render(Format::Table).contains("key-wrong"), "{refused}");
    let replica = ReplicaId::from_bytes([1; 16]);
    let replica = std::fs::read_dir(retention.join(format!("replica-{replica}"))).unwrap();
    let mut names = replica.map(|entry| entry.unwrap().path());
    let log = names.find(|path| path.to_string_lossy().contains("/log-")).unwrap();
    let verify = |key: &[&str]| {
        let words = [&["landfall", "journal", "verify", log.to_str().unwrap()], key].concat();
        let Command::Journal(command) = Cli::try_parse_from(words).unwrap().command else {
            panic!("a journal command")
        };
        super::super::journal::journal(&command, Format::Json)
    };
    verify(&["--key", &moved]).unwrap();
    assert!(verify(&["--key", &wrong]).unwrap_err().render(Format::Table).contains("key-wrong"));
    assert!(verify(&[]).unwrap_err().render(Format::Table).contains("key-missing"));
    let new = key_file(&at("new"), 3);
    run(&["rekey", path, "--to", &new, "--key", &moved]).unwrap();
    std::fs::remove_file(at("moved")).unwrap();
    export("rekeyed", &[]).unwrap();
    assert!(std::fs::read(at("rekeyed")).unwrap() == after);
    verify(&[]).unwrap();
}

/// T-17: authority without a configuration server needs somebody's word; it is kept, durable in the
/// same step, and the epoch is one that this replica has never seen. P6: a branch that has
/// authority is nobody else's to replace.
#[test]
fn a_branch_is_promoted_on_somebodys_word() {
    let temp = tempfile::tempdir().unwrap();
    let (before, _) = volume(temp.path());
    let retention = temp.path().join("retention");
    let path = retention.to_str().unwrap();
    let promote = |point: &str, attest: &str| {
        let words = ["promote", path, "--machine", "web-1", "--at-lsn", point];
        run(&[&words[..], &["--attest", attest, "--by", "on call"]].concat())
    };
    let refused = promote("4", "  ").unwrap_err();
    assert!(refused.render(Format::Table).contains("no-fence-proof"), "{refused}");
    assert!(promote("2", "no power").is_err(), "within a window");
    let held = claim_retention_volume(&retention).unwrap();
    let refused = promote("4", "no power").unwrap_err();
    assert!(refused.render(Format::Table).contains("retention-unfit"), "{refused}");
    drop(held);
    let open = || {
        let dir = Arc::new(FsDir::open(&retention).unwrap());
        let vault = Vault::open_existing(dir, Arc::new(FsImages), 1 << 20).unwrap();
        vault.open_replica(ReplicaId::from_bytes([1; 16])).unwrap().unwrap()
    };
    assert_eq!(open().status().unwrap().role, landfall_volume::Role::Replicating);

    promote("4", "the site has no power").unwrap();
    let replica = open();
    let branch = replica.authority().expect("served again after a restart");
    let entry = branch.entry().clone();
    assert_eq!((entry.fork, entry.epoch.number), (Lsn::new(4), 2));
    let mut found = vec![0; before.len()];
    branch.read(DiskIndex(0), 0, &mut found).unwrap();
    assert!(found == before, "the content of the point");
    branch.write(DiskIndex(0), 0, &Bytes::from(vec![9; 512])).unwrap();
    let words = replica.attestations().unwrap();
    assert_eq!(words.len(), 1);
    assert_eq!(
        (words[0].by.as_str(), words[0].word.as_str()),
        ("on call", "the site has no power")
    );
    assert!(words[0].epoch.number == 2 && words[0].branch == entry.name, "{words:?}");
    drop((branch, replica));
    let again = promote("4", "once more").unwrap_err();
    assert!(again.render(Format::Table).contains("wrong-state"), "{again}");
    run(&["inspect", path]).unwrap();
}
