//! Requests that are carried out on the client's own thread, and changes that are settled in
//! groups.

use crate::peers::{run, text};
use crate::support::Site;
use bytes::Bytes;
use landfall_nbd::proto::Errno;
use landfall_nbd::testing::{FileExport, MemoryExport};
use landfall_nbd::{Access, Client, ClientError, Export};
use landfall_testkit::{Rng, require, seed};
use std::sync::Arc;
use tokio::task::JoinHandle;

const SIZE: usize = 8 << 20;
const NAME: &str = "m/0@17";

fn write(client: &Arc<Client>, at: u64) -> JoinHandle<Result<(), ClientError>> {
    let client = Arc::clone(client);
    tokio::spawn(async move { client.write(at, Bytes::from(vec![9; 512])).await })
}

/// T-10: what was taken in is answered only when it is durable, and a group shares one flush.
#[tokio::test]
async fn t10_changes_are_answered_when_their_group_is_durable() {
    let export = Arc::new(MemoryExport::new(SIZE, 512).here());
    let site = Site::new(NAME, export.clone());
    let client = Arc::new(site.client(NAME).await);
    export.hold();
    // The first goes alone; those that come while it is flushed make groups.
    let first = write(&client, 0);
    export.wait_in_flight(1).await;
    let rest: Vec<_> = (1..64).map(|at| write(&client, at * 512)).collect();
    while export.counts().writes < 64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.read(512, 512).await.expect("read"), vec![9; 512], "reads show it");
    assert!(!first.is_finished() && rest.iter().all(|write| !write.is_finished()));
    export.let_go();
    first.await.expect("no panic").expect("durable");
    for write in rest {
        write.await.expect("no panic").expect("durable");
    }
    let flushes = export.counts().flushes;
    assert!((2..=32).contains(&flushes), "{flushes} flushes for 64 writes");
}

#[tokio::test]
async fn a_group_that_does_not_become_durable_fails_whole() {
    let export = Arc::new(MemoryExport::new(SIZE, 512).here());
    let site = Site::new(NAME, export.clone());
    let client = Arc::new(site.client(NAME).await);
    export.fail(true);
    let writes: Vec<_> = (0..8).map(|at| write(&client, at * 512)).collect();
    for write in writes {
        let outcome = write.await.expect("no panic");
        let io = matches!(outcome, Err(ClientError::Failed { errno: Errno::Io, .. }));
        assert!(io, "{outcome:?}");
    }
    export.fail(false);
    client.zero(0, 4096).await.expect("the next group is another one");
}

/// T-17: a change that was taken in before authority went and settles after it is not told as done,
/// and disconnecting waits for it.
#[tokio::test]
async fn t17_a_group_that_outlives_authority_is_answered_shutdown() {
    let export = Arc::new(MemoryExport::new(SIZE, 512).here());
    let site = Site::new(NAME, export.clone());
    let client = Arc::new(site.client(NAME).await);
    export.hold();
    let write = write(&client, 0);
    export.wait_in_flight(1).await;
    export.revoke();
    let moving = tokio::spawn({
        let (server, export) = (site.server.clone(), export.clone());
        async move {
            server.disconnect(NAME).await;
            export.in_flight()
        }
    });
    tokio::task::yield_now().await;
    assert!(!moving.is_finished(), "a group is in flight");
    export.let_go();
    assert_eq!(moving.await.expect("no panic"), 0);
    let outcome = write.await.expect("no panic");
    let shutdown = matches!(outcome, Err(ClientError::Failed { errno: Errno::Shutdown, .. }));
    assert!(shutdown, "{outcome:?}");
}

/// A sector that nobody else touches meanwhile has the content that was written last.
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_in_flight_agree_with_an_array() {
    let mut rng = Rng::new(seed("many_requests_in_flight_agree_with_an_array"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("image");
    std::fs::write(&path, vec![0; SIZE]).expect("an image");
    let file = FileExport::open(&path, Access::ReadWrite).expect("opened");
    let memory = MemoryExport::new(SIZE, 512).here();
    let exports: [Arc<dyn Export>; 2] = [Arc::new(file), Arc::new(memory)];
    for export in exports {
        let site = Site::new(NAME, export);
        let client = Arc::new(site.client(NAME).await);
        // Lanes of the disk that never overlap, each with one request at a time.
        let lanes: Vec<_> = (0..16_u64)
            .map(|lane| {
                let (client, seed) = (Arc::clone(&client), rng.next_u64());
                tokio::spawn(async move { drive(&client, lane * (SIZE as u64 / 16), seed).await })
            })
            .collect();
        for lane in lanes {
            lane.await.expect("the disk agrees");
        }
    }
}

async fn drive(client: &Client, start: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut expected = vec![0_u8; SIZE / 16];
    for _ in 0..60 {
        let length = 512 << rng.below(9);
        let at = rng.below((expected.len() / 512) as u64) as usize * 512;
        let length = (length as usize).min(expected.len() - at);
        let (offset, piece) = (start + at as u64, &mut expected[at..at + length]);
        match rng.below(4) {
            0 => {
                rng.fill(piece);
                client.write(offset, Bytes::copy_from_slice(piece)).await.expect("written");
            }
            1 => {
                piece.fill(0);
                client.zero(offset, length as u32).await.expect("zeroed");
            }
            _ => {
                let found = client.read(offset, length as u32).await.expect("read");
                assert!(found == *piece, "{length} bytes at {offset} differ");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_clients_see_the_same_disk_here() {
    if !require(&["libnbd", "qemu-img", "fio"]) {
        return;
    }
    let mut rng = Rng::new(seed("foreign_clients_see_the_same_disk_here"));
    let export = Arc::new(MemoryExport::new(SIZE, 512).here());
    let mut piece = vec![0; 1 << 20];
    for at in [0, 3 << 20, 7 << 20] {
        rng.fill(&mut piece);
        export.store(at, &piece);
    }
    let site = Site::new(NAME, export.clone());
    let blank = Arc::new(MemoryExport::new(SIZE, 512).here());
    site.exports.insert("blank", blank.clone());
    // With holes in structured replies: nothing is asked about allocation.
    run("nbdcopy", &["--no-extents", &site.uri(NAME), &site.uri("blank")]).await;
    assert!(blank.content() == export.content());
    let image = site.directory.path().join("image");
    let convert = ["convert", "-f", "raw", "-O", "raw", &site.uri(NAME), text(&image)];
    run("qemu-img", &convert).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());
    let uri = format!("--uri={}", site.uri("blank"));
    let job = ["--name=verify", "--ioengine=nbd", &uri, "--rw=randwrite", "--bsrange=512-128k"];
    let verify = ["--verify=crc32c", "--verify_fatal=1", "--iodepth=32", "--size=8388608"];
    let rest = ["--randseed=7", "--thread", "--output-format=terse", "--verify_state_save=0"];
    run("fio", &[&job[..], &verify, &rest].concat()).await;
    let counts = blank.counts();
    assert!(counts.writes > 100 && counts.flushes < counts.writes, "{counts:?}");
}
