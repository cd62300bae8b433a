//! B5: from the order to make a branch until its first block was read over NBD, in a running master
//! target. The peer makes a qcow2 overlay and starts qemu-nbd on it.

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::nbd::{FIRST_BLOCK, Served, Server as Peer, first_block};
use super::pairs::Spread;
use super::{peer, scratch};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use landfall_blockdev::FsDir;
use landfall_nbd::testing::ExportMap;
use landfall_nbd::{Client, Listener, Server, ServerOptions};
use landfall_types::{
    BranchId, Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation,
    InstanceId, Lineage, Lsn, MachineId, Record, ReplicaId, WindowClose, WindowId, WindowMode,
    WindowOpen, WindowReason,
};
use landfall_volume::{
    Frame, FsImages, ImageOwner, NewTestBranch, OldContent, PointSelector, Replica, ReplicaConfig,
    ReplicaDisk, Vault,
};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

pub(super) const GIB: u64 = 1 << 30;
pub(super) const DISK: DiskIndex = DiskIndex(0);
/// Small, so that a million of them are written within seconds.
const RECORD_BYTES: usize = 512;
/// Records in a frame and a flush.
const FRAME_RECORDS: u64 = 1000;
const WINDOW: WindowId = WindowId(1);

/// Measures.
///
/// # Errors
/// When the store, the server or the peer breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(measure_all(effort))
}

async fn measure_all(effort: &Effort) -> Result<Vec<Figure>> {
    let (records, turns, peers) = match effort {
        Effort::Quick => ([1_000, 50_000], 50, 5),
        Effort::Full => ([10_000, 1_000_000], 300, 30),
    };
    let mut figures = Vec::new();
    let mut medians = Vec::new();
    for size in [GIB, 1024 * GIB] {
        for records in records {
            let case = Case { size, records };
            let mut site = Site::new(case)?;
            let ours = site.ours(turns).await?;
            medians.push(Spread::of(ours.clone()).median);
            figures.push(case.p99(&ours));
            figures.push(case.ratio(&ours, &mut site, peers).await?);
        }
    }
    let flat = Spread::of(medians);
    let about = About {
        id: "B5.flat".into(),
        measure: "slowest ÷ fastest median over sizes and depths".into(),
        peer: "itself".into(),
        unit: "ratio",
        goal: Goal::None,
    };
    let ratio = flat.most / flat.least;
    let spread = Spread { median: ratio, least: ratio, most: ratio };
    figures.push(about.measured(spread, "flat means: no growth beyond the noise of a run".into()));
    Ok(figures)
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) size: u64,
    pub(super) records: u64,
}

impl Case {
    fn id(self, what: &str) -> String {
        format!("B5.{}g.{}r.{what}", self.size / GIB, self.records)
    }

    fn p99(self, ours: &[f64]) -> Figure {
        let mut sorted = ours.to_vec();
        sorted.sort_by(f64::total_cmp);
        let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
        let about = About {
            id: self.id("p99"),
            measure: "order to branch → first block served, 99th percentile".into(),
            peer: "a limit in time".into(),
            unit: "ms",
            goal: Goal::AtMost(100.0),
        };
        let spread = Spread { median: p99, least: sorted[0], most: sorted[sorted.len() - 1] };
        let note = format!("median {:.2} ms, {} turns", Spread::of(sorted).median, ours.len());
        about.measured(spread, note)
    }

    async fn ratio(self, ours: &[f64], site: &mut Site, turns: usize) -> Result<Figure> {
        let about = About {
            id: self.id("overlay"),
            measure: "order to branch → first block served".into(),
            peer: "qemu-img create -b and qemu-nbd".into(),
            unit: "ratio",
            goal: Goal::AtMost(2.0),
        };
        if let Some(why) = peer::missing(&["qemu-img", "qemu-nbd"]) {
            return Ok(about.skipped(&why));
        }
        // In turns, as everywhere: ours again beside each of the peer's.
        let mut ratios = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..turns {
            let mine = site.one().await?;
            let other = site.peer().await?;
            ratios.push(mine / other);
            theirs.push(other);
        }
        let (mine, other) = (Spread::of(ours.to_vec()).median, Spread::of(theirs).median);
        let note = format!("{mine:.2} ms, the overlay {other:.2} ms; {turns} pairs");
        Ok(about.measured(Spread::of(ratios), note))
    }
}

/// A master target's part that serves, and the peer's files.
struct Site {
    replica: Replica,
    exports: Arc<ExportMap>,
    server: Server,
    listener: Listener,
    base: PathBuf,
    turn: u64,
    directory: tempfile::TempDir,
}

impl Site {
    fn new(case: Case) -> Result<Self> {
        let directory = scratch::directory()?;
        let replica = replica(directory.path(), case)?;
        let exports = Arc::new(ExportMap::default());
        let server = Server::new(exports.clone(), ServerOptions::default());
        let listener = server.listen_unix(&directory.path().join("ours.sock")).context("listen")?;
        let base = directory.path().join("base.raw");
        let file = std::fs::File::create(&base).context("make the peer's image")?;
        file.set_len(case.size).context("size of the peer's image")?;
        file.write_all_at(FIRST_BLOCK, 0).context("write the peer's image")?;
        Ok(Self { replica, exports, server, listener, base, turn: 0, directory })
    }

    async fn ours(&mut self, turns: usize) -> Result<Vec<f64>> {
        self.one().await?;
        let mut times = Vec::with_capacity(turns);
        for _ in 0..turns {
            times.push(self.one().await?);
        }
        Ok(times)
    }

    /// One branch from the order to its first block, in milliseconds.
    async fn one(&mut self) -> Result<f64> {
        self.turn += 1;
        let name = format!("test-{}", self.turn);
        let began = Instant::now();
        let order = NewTestBranch {
            id: BranchId::generate(),
            name: name.clone(),
            point: PointSelector::Newest,
        };
        let branch = tokio::task::block_in_place(|| self.replica.test_branch(&order))
            .context("make a branch")?;
        self.exports.insert(&name, Arc::new(Served::Branch(branch)));
        let client =
            Client::connect_unix(self.listener.path(), &name).await.context("connect to ours")?;
        first_block(&client).await?;
        let time = began.elapsed();
        client.disconnect().await;
        self.exports.remove(&name);
        self.server.disconnect(&name).await;
        tokio::task::block_in_place(|| self.replica.drop_test_branch(&name))
            .context("drop a branch")?;
        Ok(time.as_secs_f64() * 1e3)
    }

    /// One overlay from the order to its first block, in milliseconds.
    async fn peer(&mut self) -> Result<f64> {
        let overlay = self.directory.path().join("overlay.qcow2");
        let socket = self.directory.path().join("peer.sock");
        let began = Instant::now();
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&self.base);
        let status = create.arg(&overlay).status().context("start qemu-img")?;
        if !status.success() {
            bail!("qemu-img create ended with {status}");
        }
        let mut server = Peer::qemu(&overlay, "qcow2", &socket)?;
        let client = server.client(&socket).await?;
        first_block(&client).await?;
        let time = began.elapsed();
        drop(server);
        // Gone already when qemu-nbd cleans up after itself.
        let _ = std::fs::remove_file(&socket);
        std::fs::remove_file(&overlay).context("remove the overlay")?;
        Ok(time.as_secs_f64() * 1e3)
    }
}

/// A replica of one disk whose first window has closed, with this many records behind it.
pub(super) fn replica(directory: &Path, case: Case) -> Result<Replica> {
    let (replica, filling) = empty_replica(directory, case.size)?;
    filling.fill(&replica, case)?;
    Ok(replica)
}

/// A replica of one empty disk whose first window has closed, and who sends to it.
pub(super) fn empty_replica(directory: &Path, size: u64) -> Result<(Replica, Filling)> {
    let vault_dir = FsDir::open_or_create(directory.join("vault")).context("make a vault")?;
    let vault =
        Vault::open(Arc::new(vault_dir), Arc::new(FsImages), 64 << 20).context("open the vault")?;
    let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
    let image = directory.join("image.raw");
    let replica = vault
        .create(ReplicaConfig {
            replica: ReplicaId::generate(),
            machine: MachineId::generate(),
            machine_name: "bench".into(),
            instance: InstanceId::generate(),
            disks: vec![ReplicaDisk {
                index: DISK,
                id: DiskId::generate(),
                geometry: DiskGeometry { size_bytes: size, sector_bytes: 512 },
                image: image.to_str().context("the directory's name is not UTF-8")?.into(),
                owner: ImageOwner::Ours,
            }],
            lineage: Lineage::root(epoch),
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            old_content: OldContent::Expendable,
            encryption: None,
            retention: landfall_types::RetentionPolicy::default(),
            segment_bytes: 64 << 20,
        })
        .context("make a replica")?;
    let mut filling = Filling { epoch, lsn: Lsn::ZERO, chain: Chain::ROOT };
    filling.first_window(&replica)?;
    Ok((replica, filling))
}

/// A sender of one run.
pub(super) struct Filling {
    epoch: Epoch,
    lsn: Lsn,
    chain: Chain,
}

impl Filling {
    fn first_window(&mut self, replica: &Replica) -> Result<()> {
        let open = Control::WindowOpen(WindowOpen {
            window: WINDOW,
            // A compare that finds the new, empty image and an empty disk equal: nothing is copied.
            reason: WindowReason::Requested,
            mode: WindowMode::Compare,
            disks: vec![DISK.0],
            into_image: false,
        });
        let close = Control::WindowClose(WindowClose { window: WINDOW, exact: true });
        self.send(replica, |lsn| vec![Record::control(lsn, &open)])?;
        self.send(replica, |lsn| vec![Record::control(lsn, &close)])
    }

    fn fill(mut self, replica: &Replica, case: Case) -> Result<()> {
        let mut rng = landfall_testkit::Rng::new(case.records);
        let data = Bytes::from(vec![0x77; RECORD_BYTES]);
        let blocks = (case.size - 8192) / RECORD_BYTES as u64;
        let mut left = case.records;
        while left > 0 {
            let count = left.min(FRAME_RECORDS);
            left -= count;
            self.send(replica, |lsn| {
                // The first block keeps what is looked for.
                let at = |rng: &mut landfall_testkit::Rng| 4096 + rng.below(blocks) * 512;
                (0..count)
                    .map(|n| Record::write(lsn.plus(n), DISK, at(&mut rng), data.clone()))
                    .collect()
            })?;
        }
        let first = Bytes::from_static(FIRST_BLOCK);
        self.send(replica, |lsn| vec![Record::write(lsn, DISK, 0, first)])
    }

    /// Sends what `records` makes of the next position, and has it made durable.
    pub(super) fn send(
        &mut self,
        replica: &Replica,
        records: impl FnOnce(Lsn) -> Vec<Record>,
    ) -> Result<()> {
        let records = records(self.lsn.next());
        let frame = Frame {
            epoch: self.epoch,
            incarnation: Incarnation::new(1),
            source_position: 0,
            chain_before: self.chain,
            records: &records,
        };
        replica.ingest(frame).context("ingest")?;
        let durable = replica.flush().context("flush")?;
        (self.lsn, self.chain) = (durable.lsn, durable.chain);
        Ok(())
    }
}
