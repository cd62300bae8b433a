//! Twenty views and branches are served at once, to our client and to others', while records come
//! in and the image is folded beneath them. Guards P3 and P4: each view is the disk as of its
//! position, whatever happens around it.

mod common;

use bytes::Bytes;
use common::{Machine, Site, branch_of};
use landfall_api_types::order::Order;
use landfall_api_types::request::PointChoice;
use landfall_nbd::{Client, ClientError, unix_uri};
use landfall_pki::Role;
use landfall_testkit::{Rng, require, seed};
use landfall_transport::testing::Fleet;
use landfall_types::Lsn;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The part of the first disk that changes.
const BUSY_BYTES: usize = 1 << 20;
const VIEWERS: usize = 16;
const BRANCHES: usize = 4;
/// Views that each viewer reads whole, one after the other.
const ROUNDS: usize = 3;

/// What the disk held at some of the positions, newest last.
#[derive(Clone, Default)]
struct Past(Arc<Mutex<Vec<(Lsn, Bytes)>>>);

impl Past {
    fn keep(&self, lsn: Lsn, disk: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((lsn, Bytes::copy_from_slice(&disk[..BUSY_BYTES])));
        let old = kept.len().saturating_sub(8);
        kept.drain(..old);
    }
    fn choose(&self, rng: &mut Rng) -> (Lsn, Bytes) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept[kept.len() - 1 - rng.below(kept.len().min(4) as u64) as usize].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_branches_stay_what_they_are_while_records_come_and_go() {
    let foreign = require(&["libnbd", "qemu-img"]);
    let mut rng = Rng::new(seed("views_and_branches_stay_what_they_are_while_records_come_and_go"));
    let site = Site::open(&Fleet::new().member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    let Order::MtCreate(mut create) = machine.create() else { panic!("an order to make it") };
    create.retention.keep_s = 1;
    site.order(Order::MtCreate(create)).await;
    machine.first_copy(&site).await;
    let past = Past::default();
    past.keep(machine.lsn(), &machine.disks[0]);
    let shutdown = CancellationToken::new();
    let kept =
        tokio::spawn(landfall_master_target::maintain(Arc::clone(&site.target), shutdown.clone()));

    let mut clients = JoinSet::new();
    for number in 0..VIEWERS {
        let viewer = Viewer {
            socket: site.socket(),
            past: past.clone(),
            program: if foreign { number % 4 } else { 0 },
            scratch: site.socket().with_file_name(format!("copy-{number}")),
        };
        clients.spawn(viewer.run(rng.next_u64()));
    }
    for number in 0..BRANCHES {
        let name = format!("test-{number}");
        let order = machine.test_branch(&name, PointChoice::Latest);
        let export = branch_of(site.order(order).await).exports[0].export.clone();
        clients.spawn(use_branch(site.socket(), export, rng.next_u64()));
    }
    // Records come in as long as anybody looks.
    while !clients.is_empty() {
        for _ in 0..40 {
            let at = rng.below((BUSY_BYTES / 512) as u64 - 32) * 512;
            let length = 512 * (1 + rng.below(32)) as usize;
            machine.write(0, at, rng.next_u64() as u8, length);
        }
        let point = machine.marker();
        machine.send(&site).await;
        past.keep(point, &machine.disks[0]);
        while let Some(ended) = clients.try_join_next() {
            ended.expect("what a client saw is what was written");
        }
    }
    for number in 0..BRANCHES {
        let name = format!("test-{number}");
        site.order(Order::MtDropBranch { replica: machine.replica, name }).await;
    }
    // With nothing that pins it, the image follows.
    let last = machine.lsn();
    site.wait_until(machine.replica, |report| report.watermarks.folded >= last).await;
    shutdown.cancel();
    kept.await.expect("no panic");
}

struct Viewer {
    socket: PathBuf,
    past: Past,
    /// Which program reads.
    program: usize,
    scratch: PathBuf,
}

impl Viewer {
    async fn run(self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut rounds = 0;
        while rounds < ROUNDS {
            let (lsn, expected) = self.past.choose(&mut rng);
            let name = format!("web/0@{lsn}");
            // Folded away since it was chosen: told so, and never shown wrong.
            let client = match Client::connect_unix(&self.socket, &name).await {
                Ok(client) => client,
                Err(ClientError::Refused { message, .. }) => {
                    assert!(message.contains("not kept"), "{name}: {message}");
                    continue;
                }
                Err(error) => panic!("{name}: {error}"),
            };
            // Held while others read the same position: it stays as long as somebody has it open.
            let found = match self.program {
                1 => self.copy("nbdcopy", &name, &["--no-extents"]).await,
                2 => self.copy("nbdcopy", &name, &[]).await,
                3 => self.copy("qemu-img", &name, &["convert", "-f", "raw", "-O", "raw"]).await,
                _ => read_in_pieces(&client, &mut rng).await,
            };
            assert!(found == expected, "{name} is not what was written up to there");
            client.disconnect().await;
            rounds += 1;
        }
    }

    async fn copy(&self, program: &str, name: &str, arguments: &[&str]) -> Bytes {
        let uri = unix_uri(&self.socket, name);
        let mut command = Command::new(program);
        command.args(arguments).arg(&uri).arg(&self.scratch).kill_on_drop(true);
        let output = command.output().await.expect("it starts");
        assert!(output.status.success(), "{program} {uri}: {output:?}");
        let mut bytes = std::fs::read(&self.scratch).expect("a copy");
        bytes.truncate(BUSY_BYTES);
        bytes.into()
    }
}

async fn read_in_pieces(client: &Client, rng: &mut Rng) -> Bytes {
    let mut found = Vec::with_capacity(BUSY_BYTES);
    while found.len() < BUSY_BYTES {
        let length = (512 << rng.below(8)).min(BUSY_BYTES - found.len());
        let piece = client.read(found.len() as u64, length as u32).await.expect("read");
        found.extend_from_slice(&piece);
    }
    found.into()
}

/// Writes and reads a branch of its own, beside everything.
async fn use_branch(socket: impl AsRef<Path>, export: String, seed: u64) {
    let mut rng = Rng::new(seed);
    let client = Client::connect_unix(socket.as_ref(), &export).await.expect("served");
    let mut expected = vec![0; BUSY_BYTES];
    for (at, piece) in expected.chunks_mut(128 << 10).enumerate() {
        piece
            .copy_from_slice(&client.read(at as u64 * (128 << 10), 128 << 10).await.expect("read"));
    }
    for _ in 0..60 {
        let at = rng.below((BUSY_BYTES / 512) as u64 - 64) as usize * 512;
        let piece = &mut expected[at..at + 512 * (1 + rng.below(64)) as usize];
        match rng.below(3) {
            0 => {
                piece.fill(0);
                client.zero(at as u64, piece.len() as u32).await.expect("zeroed");
            }
            1 => {
                rng.fill(piece);
                client.write(at as u64, Bytes::copy_from_slice(piece)).await.expect("durable");
            }
            _ => {
                let found = client.read(at as u64, piece.len() as u32).await.expect("read");
                assert!(found == *piece, "{export} at {at}");
            }
        }
    }
    client.disconnect().await;
}
