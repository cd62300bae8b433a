//! The golden superblock: a change here is a change of the format (`docs/formats/volume.md`).

use super::*;
use crate::body::{
    Attestation, BaseContent, BranchEntry, Demoted, DivergenceEntry, FoldMark, FoldedMarker,
    ImageCopy, ImageOwner, Pin, PointNote, ReplicaDisk, Role, ScrubPlace, ScrubState, UndoEntry,
    UndoPhase,
};
use crate::replica::{Rot, ScrubReport};
use crate::tree::LogNode;
use landfall_blockdev::sim::SimMedium;
use landfall_types::{
    BranchId, ByteRange, Chain, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, InstanceId,
    Lineage, LogId, Lsn, MachineId, MarkerKind, ReplicaId, RetentionPolicy, WindowId,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/superblock-v1.bin");

/// Every field is used once.
fn body() -> Body {
    let log = |n| LogId::from_bytes([n; 16]);
    let lsn = Lsn::new;
    let first = Epoch { number: 1, id: EpochId::new(0x11), parent: None };
    let second = Epoch { number: 2, id: EpochId::new(0x22), parent: Some(first.id) };
    let lineage = Lineage::root(first).extend(second, lsn(70)).expect("rises");
    let branch = BranchEntry {
        id: BranchId::from_bytes([6; 16]),
        name: "epoch-2".into(),
        log: log(5),
        fork: lsn(70),
        epoch: second,
        lineage: Some(lineage.clone()),
    };
    Body {
        replica: ReplicaId::from_bytes([1; 16]),
        machine: MachineId::from_bytes([2; 16]),
        machine_name: "web".into(),
        instance: InstanceId::from_bytes([3; 16]),
        role: Role::Writable,
        lineage,
        epoch_highest: 2,
        log: log(5),
        logs: vec![
            LogNode { log: log(4), parent: None, fork: Lsn::ZERO, dropped: false },
            LogNode { log: log(5), parent: Some(log(4)), fork: lsn(70), dropped: false },
        ],
        disks: vec![ReplicaDisk {
            index: DiskIndex(0),
            id: DiskId::from_bytes([7; 16]),
            geometry: DiskGeometry { size_bytes: 1 << 30, sector_bytes: 512 },
            image: "/dev/mapper/web-0".into(),
            owner: ImageOwner::Foreign,
        }],
        base: BaseContent::Exact,
        folded: lsn(60),
        folded_marker: Some(FoldedMarker {
            lsn: lsn(60),
            kind: MarkerKind::User,
            time_unix_ns: 1_700_000_000_000_000_000,
            name: Some("monday".into()),
            group: Some([9; 16]),
        }),
        fold_through: Some(lsn(70)),
        fold_done: Some(FoldMark { disk: DiskIndex(0), offset: 1 << 20 }),
        doubt: Some(lsn(66)),
        scrub: Some(ScrubState {
            place: Some(ScrubPlace::Image { disk: DiskIndex(0), offset: 4096 }),
            so_far: ScrubReport { records: 3, record_bytes: 12_288, ..ScrubReport::default() },
            last: Some(ScrubReport {
                finished_s: Some(1_700_000_000),
                rot: vec![Rot::Image {
                    disk: DiskIndex(0),
                    range: ByteRange { start: 0, end: 4096 },
                }],
                ..ScrubReport::default()
            }),
            rot: vec![
                Rot::Image { disk: DiskIndex(0), range: ByteRange { start: 0, end: 4096 } },
                Rot::Record {
                    log: log(4),
                    lsn: lsn(72),
                    disk: DiskIndex(0),
                    range: ByteRange { start: 512, end: 1024 },
                },
            ],
        }),
        points_from: lsn(70),
        authority: Some(branch.id),
        branches: vec![branch],
        divergence: vec![DivergenceEntry {
            name: "epoch-1-after-70".into(),
            description: "what was replicated behind the chosen point".into(),
            log: Some(log(4)),
            epoch: Some(first),
            after: lsn(70),
            through: lsn(90),
            discarded: true,
        }],
        image_copy: Some(ImageCopy {
            window: WindowId(9),
            durable_bytes: vec![(DiskIndex(0), 4096)],
        }),
        undo: Some(UndoEntry {
            file: "undo-70".into(),
            from: lsn(60),
            base: BaseContent::Unknown,
            phase: UndoPhase::Saved,
            folded_bytes: 8192,
            geometry: vec![(DiskIndex(0), DiskGeometry { size_bytes: 1 << 29, sector_bytes: 512 })],
        }),
        demoted: Some(Demoted { epoch: second, lsn: lsn(95), chain: Chain::from_bytes([8; 16]) }),
        retention: RetentionPolicy { size_bytes: Some(1 << 40), ..RetentionPolicy::default() },
        notes: vec![PointNote {
            log: log(4),
            lsn: lsn(65),
            name: Some("before the upgrade".into()),
            pin: Some(Pin { by: "operator/kim".into(), until_ms: Some(3_600_000) }),
        }],
        encryption: None,
        attestations: vec![Attestation {
            epoch: first,
            branch: "epoch-1".into(),
            by: "ops".into(),
            word: "the site burned down".into(),
            time_unix_ns: 1_700_000_000_000_000_000,
        }],
    }
}

#[test]
fn golden_superblock() {
    let encoded = minicbor_serde::to_vec(body()).expect("encodes");
    let bytes = seal(MAGIC, 41, &encoded);
    if std::env::var_os("LANDFALL_GOLDEN_WRITE").is_some() {
        std::fs::write(GOLDEN, &bytes).expect("written");
    }
    let golden = std::fs::read(GOLDEN).expect("the golden file is there");
    assert!(bytes == golden, "the superblock's format has changed");
    let (sequence, found) = unseal(MAGIC, &golden).expect("a frame");
    assert_eq!(sequence, 41);
    let found: Body = minicbor_serde::from_slice(found).expect("decodes");
    assert_eq!(found, body());
}

/// Later versions may add keys: they are skipped.
#[test]
fn unknown_keys_are_skipped() {
    let encoded = minicbor_serde::to_vec(body()).expect("encodes");
    // A map of n pairs begins with 0xa0 + n, or 0xb8 n from 24 on, or 0xbf for an open one.
    let mut longer = match encoded[0] {
        0xbf => encoded.clone(),
        0xb8 => [&[0xb8, encoded[1] + 1], &encoded[2..]].concat(),
        0xb7 => [&[0xb8, 24], &encoded[1..]].concat(),
        small => [&[small + 1], &encoded[1..]].concat(),
    };
    let at = if encoded[0] == 0xbf { longer.len() - 1 } else { longer.len() };
    longer.splice(at..at, [0x65, b'l', b'a', b't', b'e', b'r', 0x01]);
    let found: Body = minicbor_serde::from_slice(&longer).expect("decodes");
    assert_eq!(found, body());
}

/// A frame that is too long is refused before it is written: it could never be read again, and the
/// version before, with the role before, would hold.
#[test]
fn a_body_that_could_not_be_read_again_is_not_written() {
    let dir = SimMedium::new(512).root();
    let mut store = Store::create(&*dir, body()).expect("created");
    let long = DivergenceEntry { description: "x".repeat(5 << 20), ..body().divergence[0].clone() };
    let refused = store.write(Body { divergence: vec![long], ..body() });
    assert!(matches!(refused, Err(StorageError::TooLong(_))), "{refused:?}");
    let shorter = Body { folded: Lsn::new(61), ..body() };
    store.write(shorter.clone()).expect("nothing was poisoned");
    let Found::Replica(found) = Store::open(&*dir).expect("readable") else { panic!("complete") };
    assert_eq!(found.body().expect("readable"), &shorter);
}
