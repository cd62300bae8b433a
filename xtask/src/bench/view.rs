//! B3: reads of a view over NBD on one connection, at growing depth; and durable writes through a
//! branch. The peers serve the same content: qemu-nbd a qcow2 overlay, nbdkit a raw file.
//!
//! All of it lies in the page cache on both sides: what is compared is what a server adds. The part
//! of the disk that is read stays the same size at every depth, so that a growing depth is nothing
//! but a growing number of records beneath it.

use super::branch::{Filling, empty_replica};
use super::figure::{About, Figure, Goal};
use super::fio::NbdLoad;
use super::nbd::{Served, Server as Peer};
use super::pairs::{Comparison, compare};
use super::{Effort, peer, scratch};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use landfall_nbd::testing::ExportMap;
use landfall_nbd::{Listener, Server, ServerOptions, unix_uri};
use landfall_testkit::Rng;
use landfall_types::{BranchId, DiskIndex, Record};
use landfall_volume::{NewTestBranch, PointSelector, Replica};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const DISK: DiskIndex = DiskIndex(0);
/// What is read.
const BUSY_BYTES: u64 = 256 << 20;
/// Where records go that only make the log deeper, in pieces of one sector: with blocks of 4 KiB
/// 10⁷ records would fill 40 GB.
const FILLER_BYTES: u64 = 64 << 20;
const BLOCK: u64 = 4096;
const FRAME_RECORDS: u64 = 1000;
const PROGRAMS: &[&str] = &["fio", "qemu-img", "qemu-nbd", "nbdkit"];

/// One way to read, with its goal against the overlay and against nbdkit.
struct Load {
    id: &'static str,
    measure: &'static str,
    rw: &'static str,
    block: &'static str,
    queue_depth: u32,
    overlay: Goal,
}

// tidy: table
const LOADS: &[Load] = &[
    Load {
        id: "4k.qd32",
        measure: "4 KiB random reads, depth 32",
        rw: "randread",
        block: "4k",
        queue_depth: 32,
        overlay: Goal::AtLeast(2.0),
    },
    Load {
        id: "4k.qd1",
        measure: "4 KiB random reads, depth 1",
        rw: "randread",
        block: "4k",
        queue_depth: 1,
        overlay: Goal::AtLeast(1.0),
    },
    Load {
        id: "1m.seq",
        measure: "1 MiB sequential reads, depth 4",
        rw: "read",
        block: "1m",
        queue_depth: 4,
        overlay: Goal::AtLeast(1.0),
    },
];

/// Measures.
///
/// # Errors
/// When the store, a server or fio breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    if let Some(why) = peer::missing(PROGRAMS) {
        bail!("{why}");
    }
    let (depths, time, pairs): (&[u64], _, _) = match effort {
        Effort::Quick => (&[10_000, 100_000], Duration::from_millis(700), 3),
        Effort::Full => (&[10_000, 100_000, 1_000_000, 10_000_000], Duration::from_secs(4), 7),
    };
    let mut figures = Vec::new();
    let mut medians: Vec<(&str, f64)> = Vec::new();
    for records in depths {
        let site = Site::new(*records)?;
        for load in LOADS {
            let fio = |uri: &str| {
                let (rw, block, queue_depth) = (load.rw, load.block, load.queue_depth);
                NbdLoad { uri, rw, block, queue_depth, size: BUSY_BYTES, time }.run()
            };
            let overlay = compare(pairs, || fio(&site.view), || fio(&site.overlay))?;
            medians.push((load.id, overlay.ours.median));
            let id = format!("B3.{records}.{}", load.id);
            figures.push(figure(&id, load.measure, "overlay", load.overlay, &overlay));
            let raw = compare(pairs, || fio(&site.view), || fio(&site.raw))?;
            // Either goal is enough at depth 32; the others have none against nbdkit.
            let goal = if load.queue_depth == 32 { Goal::AtLeast(0.8) } else { Goal::None };
            figures.push(figure(&id, load.measure, "nbdkit", goal, &raw));
        }
        figures.push(site.writes(*records, time, pairs)?);
    }
    figures.extend(LOADS.iter().map(|load| flat(load, &medians)));
    Ok(figures)
}

fn figure(id: &str, measure: &str, peer: &str, goal: Goal, found: &Comparison) -> Figure {
    let about = About {
        id: format!("{id}.{peer}"),
        measure: measure.into(),
        peer: match peer {
            "overlay" => "qemu-nbd on a qcow2 overlay of the same content".into(),
            "nbdkit" => "nbdkit's file plugin on the raw image".into(),
            other => other.to_owned(),
        },
        unit: "ratio",
        goal,
    };
    let note = format!("{:.0} IOPS, the peer {:.0}", found.ours.median, found.peer.median);
    about.measured(found.ratio, note)
}

/// The slowest depth against the fastest one.
fn flat(load: &Load, medians: &[(&str, f64)]) -> Figure {
    let of_load = medians.iter().filter(|(id, _)| *id == load.id).map(|(_, iops)| *iops);
    let spread = super::pairs::Spread::of(of_load.collect());
    let about = About {
        id: format!("B3.flat.{}", load.id),
        measure: format!("{}: slowest ÷ fastest depth", load.measure),
        peer: "itself".into(),
        unit: "ratio",
        goal: Goal::AtLeast(0.8),
    };
    let ratio = spread.least / spread.most;
    let spread = super::pairs::Spread { median: ratio, least: ratio, most: ratio };
    about.measured(spread, "flat means: no loss beyond the noise of a run".into())
}

/// Our server and its peers, with the same content.
struct Site {
    view: String,
    branch: String,
    overlay: String,
    overlay_durable: String,
    raw: String,
    // Kept for what they serve, in the order in which they have to go.
    _peers: Vec<Peer>,
    _listener: Listener,
    _runtime: tokio::runtime::Runtime,
    _replica: Replica,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new(records: u64) -> Result<Self> {
        let directory = scratch::directory()?;
        let path = directory.path();
        let (replica, filling) = empty_replica(path, BUSY_BYTES + FILLER_BYTES)?;
        fill(filling, &replica, records).context("fill the journal")?;
        let view = replica.view(&PointSelector::Newest).context("open a view")?;
        let order = NewTestBranch {
            id: BranchId::generate(),
            name: "bench".into(),
            point: PointSelector::Newest,
        };
        let branch = replica.test_branch(&order).context("make a branch")?;
        let exports = ExportMap::of("view", Arc::new(Served::View(view)));
        exports.insert("branch", Arc::new(Served::Branch(branch)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start the runtime")?;
        let server = Server::new(exports, ServerOptions::default());
        let socket = path.join("ours.sock");
        let listener = {
            let _context = runtime.enter();
            server.listen_unix(&socket).context("listen")?
        };
        let view = unix_uri(&socket, "view");
        let raw = path.join("raw");
        qemu_img(&["convert", "-f", "raw", "-O", "raw", &view], &[&raw])?;
        let peers = peers(path, &raw)?;
        Ok(Self {
            branch: unix_uri(&socket, "branch"),
            overlay: unix_uri(&path.join("overlay.sock"), "peer"),
            overlay_durable: unix_uri(&path.join("durable.sock"), "peer"),
            raw: unix_uri(&path.join("raw.sock"), ""),
            view,
            _peers: peers,
            _listener: listener,
            _runtime: runtime,
            _replica: replica,
            _directory: directory,
        })
    }

    /// Both sides answer a write when it is durable.
    fn writes(&self, records: u64, time: Duration, pairs: usize) -> Result<Figure> {
        let fio = |uri: &str| {
            let (rw, block) = ("randwrite", "4k");
            NbdLoad { uri, rw, block, queue_depth: 32, size: BUSY_BYTES, time }.run()
        };
        let found = compare(pairs, || fio(&self.branch), || fio(&self.overlay_durable))?;
        let id = format!("B3.{records}.write.qd32");
        let peer = "qemu-nbd --cache=writethrough on a qcow2 overlay";
        let measure = "4 KiB random durable writes to a branch, depth 32";
        let mut figure = figure(&id, measure, peer, Goal::None, &found);
        figure.id = id;
        Ok(figure)
    }
}

/// Every block that is read is in the journal; the records on top of that are filler, older than
/// most of them.
fn fill(mut filling: Filling, replica: &Replica, records: u64) -> Result<()> {
    let mut rng = Rng::new(records);
    let blocks = BUSY_BYTES / BLOCK;
    let busy = records.min(4 * blocks);
    let mut block = vec![0; BLOCK as usize];
    for (count, size) in [(records - busy, 512), (busy, BLOCK)] {
        let mut left = count;
        while left > 0 {
            let now = left.min(FRAME_RECORDS);
            left -= now;
            filling.send(replica, |first| {
                let record = |n: u64| {
                    rng.fill(&mut block[..64]);
                    let data = Bytes::copy_from_slice(&block[..size as usize]);
                    let at = if size == BLOCK {
                        rng.below(blocks) * BLOCK
                    } else {
                        BUSY_BYTES + rng.below(FILLER_BYTES / 512) * 512
                    };
                    Record::write(first.plus(n), DISK, at, data)
                };
                (0..now).map(record).collect()
            })?;
        }
    }
    Ok(())
}

fn peers(path: &Path, raw: &Path) -> Result<Vec<Peer>> {
    let base = path.join("base.raw");
    let file = std::fs::File::create(&base).context("make the peer's image")?;
    file.set_len(BUSY_BYTES + FILLER_BYTES).context("size of the peer's image")?;
    let mut servers = Vec::new();
    for (name, cache) in [("overlay", "writeback"), ("durable", "writethrough")] {
        let overlay = path.join(format!("{name}.qcow2"));
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b"], &[&base, &overlay])?;
        qemu_img(&["convert", "-n", "-f", "raw", "-O", "qcow2"], &[raw, &overlay])?;
        let socket = path.join(format!("{name}.sock"));
        let mut server = Peer::qemu_cached(&overlay, "qcow2", &socket, cache)?;
        server.wait(&socket)?;
        servers.push(server);
    }
    let socket: PathBuf = path.join("raw.sock");
    let mut server = Peer::nbdkit(raw, &socket)?;
    server.wait(&socket)?;
    servers.push(server);
    Ok(servers)
}

fn qemu_img(arguments: &[&str], paths: &[&Path]) -> Result<()> {
    let status = Command::new("qemu-img").args(arguments).args(paths).status();
    let status = status.context("start qemu-img")?;
    if !status.success() {
        bail!("qemu-img {} ended with {status}", arguments[0]);
    }
    Ok(())
}
