//! `kill -9` of a process that takes records and folds them (fault F1): what it has said is durable
//! is there, every point is exact, and the image never holds anything else.
//!
//! The test program starts itself as the process to be killed, so it has a `main` of its own. More
//! rounds by `LANDFALL_TEST_KILLS`; the seed by `SEED`.

use bytes::Bytes;
use landfall_blockdev::FsDir;
use landfall_testkit::{Rng, seed};
use landfall_types::{
    Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation, InstanceId,
    Lineage, Lsn, MachineId, Record, ReplicaId, RetentionPolicy, WindowClose, WindowId, WindowMode,
    WindowOpen, WindowReason,
};
use landfall_volume::{
    FoldPace, Frame, FsImages, ImageOwner, OldContent, PointSelector, Replica, ReplicaConfig,
    ReplicaDisk, Unpaced, Vault,
};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const CHILD: &str = "LANDFALL_KILL_CHILD";
const ROUNDS_DEFAULT: u64 = 8;
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 512;

fn main() {
    if let Ok(path) = std::env::var(CHILD) {
        return child(Path::new(&path));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("a_folding_process_survives_kill_9: test");
        }
        return;
    }
    a_folding_process_survives_kill_9();
}

fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

fn replica(path: &Path) -> Replica {
    let id = ReplicaId::from_bytes([1; 16]);
    let dir = Arc::new(FsDir::open_or_create(path.join("retention")).expect("a directory"));
    let vault = Vault::open(dir, Arc::new(FsImages), 256 << 10).expect("a volume");
    if vault.list().expect("listed").contains(&id)
        && let Some(replica) = vault.open_replica(id).expect("opens after a kill")
    {
        return replica;
    }
    let disk = ReplicaDisk {
        index: DiskIndex(0),
        id: DiskId::from_bytes([4; 16]),
        geometry: DiskGeometry { size_bytes: BLOCK * BLOCKS, sector_bytes: 512 },
        image: path.join("image").to_string_lossy().into_owned(),
        owner: ImageOwner::Ours,
    };
    let config = ReplicaConfig {
        replica: id,
        machine: MachineId::from_bytes([2; 16]),
        machine_name: "m".into(),
        instance: InstanceId::from_bytes([3; 16]),
        disks: vec![disk],
        lineage: Lineage::root(epoch()),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        old_content: OldContent::Expendable,
        retention: RetentionPolicy::default(),
        segment_bytes: 256 << 10,
        encryption: None,
    };
    vault.create(config).expect("made")
}

/// The history is a function of the position: records 1 and 2 are a window, record `n` writes block
/// `n mod BLOCKS` full of `n`.
fn record(lsn: Lsn) -> Record {
    let window = WindowId(1);
    match lsn.get() {
        1 => {
            let (reason, mode) = (WindowReason::Requested, WindowMode::Copy);
            let open = WindowOpen { window, reason, mode, disks: vec![0], into_image: false };
            Record::control(lsn, &Control::WindowOpen(open))
        }
        2 => Record::control(lsn, &Control::WindowClose(WindowClose { window, exact: true })),
        n => {
            let data: Vec<u8> = n.to_le_bytes().repeat((BLOCK / 8) as usize);
            Record::write(lsn, DiskIndex(0), n % BLOCKS * BLOCK, Bytes::from(data))
        }
    }
}

/// The newest record that wrote a block, at a position.
fn writer(block: u64, at: Lsn) -> u64 {
    let back = (at.get() % BLOCKS + BLOCKS - block) % BLOCKS;
    at.get().checked_sub(back).filter(|n| *n > 2).unwrap_or(0)
}

/// A checkpoint every few blocks, so that kills hit them.
struct Checkpoints;
impl FoldPace for Checkpoints {
    fn before(&self, _: u64) -> bool {
        true
    }
    fn checkpoint_bytes(&self) -> u64 {
        16 * BLOCK
    }
}

fn child(path: &Path) {
    let replica = replica(path);
    if let Some(pending) = replica.fold_pending().expect("readable") {
        replica.fold_paced(pending, &Checkpoints).expect("redo");
    }
    loop {
        let tail = replica.flush().expect("flushed");
        let records: Vec<Record> = (1..=40).map(|n| record(tail.lsn.plus(n))).collect();
        let frame = Frame {
            epoch: epoch(),
            incarnation: Incarnation::new(7),
            source_position: 0,
            chain_before: tail.chain,
            records: &records,
        };
        replica.ingest(frame).expect("taken");
        let durable = replica.flush().expect("flushed").lsn;
        let mut out = std::io::stdout();
        if writeln!(out, "{}", durable.get()).and_then(|()| out.flush()).is_err() {
            return; // the parent is gone
        }
        let to = Lsn::new(durable.get().saturating_sub(100).max(2));
        if let Some(to) = replica.fold_limit(to).expect("readable") {
            replica.fold_paced(to, &Checkpoints).expect("folded");
        }
    }
}

fn a_folding_process_survives_kill_9() {
    let mut rng = Rng::new(seed("kill -9 of a fold"));
    let rounds = std::env::var("LANDFALL_TEST_KILLS")
        .map_or(ROUNDS_DEFAULT, |text| text.parse().expect("LANDFALL_TEST_KILLS is a number"));
    let temp = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(CHILD, temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the child");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut parse = |line: Option<std::io::Result<String>>| {
            let Some(Ok(line)) = line else { return false };
            acknowledged = line.parse().expect("a position");
            true
        };
        // Killed somewhere behind the n-th acknowledgement: mostly within a fold.
        for _ in 0..=rng.below(12) {
            assert!(parse(lines.next()), "the child ended by itself");
        }
        child.kill().expect("kill");
        while parse(lines.next()) {}
        child.wait().expect("wait");
        check(&replica(temp.path()), Lsn::new(acknowledged), round);
    }
    assert!(acknowledged > 400);
}

fn check(replica: &Replica, acknowledged: Lsn, round: u64) {
    let durable = replica.flush().expect("flushed").lsn;
    assert!(durable >= acknowledged, "round {round}: {durable} instead of {acknowledged}");
    for (first, last) in replica.choices().expect("listed").legal {
        for at in [first, Lsn::new(first.get().midpoint(last.get())), last] {
            let view = replica.view(&PointSelector::Lsn(at)).expect("offered");
            let mut block_bytes = [0; BLOCK as usize];
            for block in 0..BLOCKS {
                view.read(DiskIndex(0), block * BLOCK, &mut block_bytes).expect("readable");
                let expected = writer(block, at).to_le_bytes();
                let exact = block_bytes.chunks(8).all(|word| word == expected);
                assert!(exact, "round {round}: block {block} at {at}: {:?}", &block_bytes[..8]);
            }
        }
    }
    if replica.fold_pending().expect("readable").is_none() {
        let report = replica.scrub(&Unpaced, 1).expect("scrubbed");
        assert!(report.rot.is_empty(), "round {round}: sound data is accused: {report:?}");
    }
}
