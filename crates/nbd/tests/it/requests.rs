use crate::support::Site;
use bytes::Bytes;
use landfall_nbd::proto::Errno;
use landfall_nbd::proto::limits::PAYLOAD_BYTES_MAX;
use landfall_nbd::testing::{FileExport, MemoryExport};
use landfall_nbd::{Access, Client, ClientError, Export};
use landfall_testkit::{Rng, seed};
use std::sync::Arc;
use tokio::task::JoinSet;

const SIZE: usize = 1 << 20;
const BLOCK: u64 = 512;

fn errno<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Errno {
    match outcome {
        Err(ClientError::Failed { errno, .. }) => errno,
        other => panic!("expected a failed request, found {other:?}"),
    }
}

/// P4: what comes back through the whole of client, socket and server is what a naive model says.
async fn agrees_with_the_oracle(export: Arc<dyn Export>, test: &str) {
    let mut rng = Rng::new(seed(test));
    let site = Site::new("m/0", export);
    let client = site.client("m/0").await;
    let mut oracle = vec![0; SIZE];
    for step in 0..400 {
        let offset = rng.below(SIZE as u64 / BLOCK) * BLOCK;
        let longest = (SIZE as u64 - offset).min(64 << 10) / BLOCK;
        let length = (rng.below(longest) + 1) * BLOCK;
        let range = offset as usize..(offset + length) as usize;
        let length = length as u32;
        match rng.below(6) {
            0 | 1 => {
                let mut data = vec![0; range.len()];
                rng.fill(&mut data);
                oracle[range].copy_from_slice(&data);
                client.write(offset, data.into()).await.expect("written");
            }
            2 => {
                oracle[range].fill(0);
                client.zero(offset, length).await.expect("zeroed");
            }
            3 => {
                oracle[range].fill(0);
                client.trim(offset, length).await.expect("trimmed");
            }
            4 => {
                // A hole must be one; data may be zeroes or not.
                let mut at = offset;
                for extent in client.block_status(offset, length).await.expect("status") {
                    let end = (at + extent.length).min(SIZE as u64);
                    let zeroes = oracle[at as usize..end as usize].iter().all(|byte| *byte == 0);
                    assert!(!extent.hole || zeroes, "step {step}: a hole at {at} with data");
                    at = end;
                }
                assert!(at > offset, "step {step}: no extent at {offset}");
            }
            _ => {
                let data = client.read(offset, length).await.expect("read");
                assert_eq!(data, oracle[range], "step {step}: {length} bytes at {offset}");
            }
        }
    }
    client.flush().await.expect("flushed");
    assert_eq!(client.read(0, SIZE as u32).await.expect("read"), oracle);
    client.disconnect().await;
}

#[tokio::test]
async fn a_disk_in_memory_agrees_with_the_oracle() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    agrees_with_the_oracle(export, "a_disk_in_memory_agrees_with_the_oracle").await;
}

#[tokio::test]
async fn a_disk_in_a_file_agrees_with_the_oracle() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(SIZE as u64).expect("room");
    let export = Arc::new(FileExport::open(file.path(), Access::ReadWrite).expect("our file"));
    agrees_with_the_oracle(export, "a_disk_in_a_file_agrees_with_the_oracle").await;
}

/// Many requests in flight at once, on several connections: each answer belongs to its request.
#[tokio::test(flavor = "multi_thread")]
async fn answers_in_any_order_reach_who_asked() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    for block in 0..SIZE as u64 / BLOCK {
        export.store(block * BLOCK, &block.to_le_bytes().repeat(64));
    }
    let site = Site::new("m/0", export);
    let mut readers = JoinSet::new();
    for connection in 0..4 {
        let client = Arc::new(site.client("m/0").await);
        assert!(client.can_multi_conn());
        for lane in 0..64 {
            let client = Arc::clone(&client);
            readers.spawn(async move {
                for turn in 0..8_u64 {
                    let block = (connection * 509 + lane * 31 + turn * 257) % (SIZE as u64 / BLOCK);
                    let data = client.read(block * BLOCK, 512).await.expect("read");
                    assert_eq!(data, block.to_le_bytes().repeat(64));
                }
            });
        }
    }
    while let Some(outcome) = readers.join_next().await {
        outcome.expect("the reader found its blocks");
    }
}

#[tokio::test]
async fn a_slow_request_does_not_hold_up_those_behind_it() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export.clone());
    let client = Arc::new(site.client("m/0").await);
    export.hold();
    let slow = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.read(0, 512).await }
    });
    export.wait_in_flight(1).await;
    // Refused without the store: its answer passes the one that is held.
    assert_eq!(errno(client.read(SIZE as u64, 512).await), Errno::Invalid);
    assert!(!slow.is_finished());
    export.let_go();
    slow.await.expect("no panic").expect("read");
}

#[tokio::test]
async fn the_largest_payload_passes_and_one_block_more_does_not() {
    let size = PAYLOAD_BYTES_MAX as usize + 4096;
    let export = Arc::new(MemoryExport::new(size, 512));
    let site = Site::new("m/0", export.clone());
    let client = site.client("m/0").await;
    let data = Bytes::from(vec![7; PAYLOAD_BYTES_MAX as usize]);
    client.write(0, data.clone()).await.expect("written");
    assert_eq!(export.counts().writes, 1, "a write is passed on whole");
    assert_eq!(client.read(0, PAYLOAD_BYTES_MAX).await.expect("read"), data);
    let long = client.write(0, Bytes::from(vec![7; size])).await;
    assert!(matches!(long, Err(ClientError::TooLong(_))), "{long:?}");
}

#[tokio::test]
async fn errors_of_the_store_are_told_and_the_session_goes_on() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export.clone());
    let client = site.client("m/0").await;
    export.fail(true);
    assert_eq!(errno(client.read(0, 512).await), Errno::Io);
    assert_eq!(errno(client.write(0, Bytes::from(vec![1; 512])).await), Errno::Io);
    export.fail(false);
    assert_eq!(client.read(0, 512).await.expect("read"), vec![0; 512]);
}

#[tokio::test]
async fn a_view_is_not_written() {
    let content: Vec<u8> = (0..SIZE).map(|at| (at / 512) as u8).collect();
    let export = Arc::new(MemoryExport::view(&content, 512));
    let site = Site::new("m/0@17", export.clone());
    let client = site.client("m/0@17").await;
    assert!(client.is_read_only());
    assert!(!client.can_multi_conn(), "two openings of a moving name may differ");
    for outcome in [
        client.write(0, Bytes::from(vec![9; 512])).await,
        client.zero(0, 512).await,
        client.trim(0, 512).await,
    ] {
        assert_eq!(errno(outcome), Errno::NotPermitted);
    }
    client.flush().await.expect("nothing to do, and allowed");
    assert_eq!(export.content(), content);
}

/// T-9: a disk with sectors of 4096 bytes says so, and is not served in pieces of 512.
#[tokio::test]
async fn sectors_of_4096_bytes_are_kept() {
    let site = Site::new("m/0", Arc::new(MemoryExport::new(SIZE, 4096)));
    let client = site.client("m/0").await;
    assert_eq!(client.info().block_bytes, 4096);
    assert_eq!(errno(client.read(512, 4096).await), Errno::Invalid);
    assert_eq!(errno(client.write(0, Bytes::from(vec![1; 512])).await), Errno::Invalid);
    client.write(4096, Bytes::from(vec![1; 4096])).await.expect("one sector");
}

#[tokio::test]
async fn one_extent_is_one_and_no_longer_than_asked() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    export.store(4096, &[1; 8192]);
    let site = Site::new("m/0", export);
    let client = site.client("m/0").await;
    let hole = client.block_status_one(0, 65536).await.expect("status");
    assert_eq!((hole.length, hole.hole), (4096, true));
    let data = client.block_status_one(4096, 4096).await.expect("status");
    assert_eq!((data.length, data.hole), (4096, false));
    let all = client.block_status(0, 65536).await.expect("status");
    assert_eq!(all.iter().map(|extent| extent.length).collect::<Vec<_>>(), [4096, 8192, 53248]);
}

#[tokio::test]
async fn names_are_listed_and_unknown_ones_refused() {
    let site = Site::new("a/0@latest", Arc::new(MemoryExport::new(SIZE, 512)));
    site.exports.insert("b/1", Arc::new(MemoryExport::new(SIZE, 512)));
    site.exports.insert("c/2", Arc::new(MemoryExport::new(3000, 1000)));
    let names = Client::list_unix(&site.socket()).await.expect("listed");
    assert_eq!(names, ["a/0@latest", "b/1", "c/2"]);
    for name in ["", "d", "c/2"] {
        let refused = Client::connect_unix(&site.socket(), name).await;
        assert!(matches!(refused, Err(ClientError::Refused { .. })), "{name:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_server_serves_any_pair_of_streams() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export);
    // A pipe of 64 bytes: every message is split somewhere.
    let (ours, theirs) = tokio::io::duplex(64);
    let server = site.server.clone();
    let session = tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(theirs);
        server.serve(reader, writer).await
    });
    let (reader, writer) = tokio::io::split(ours);
    let client = Client::over(reader, writer, "m/0").await.expect("negotiated");
    client.write(512, Bytes::from(vec![3; 4096])).await.expect("written");
    assert_eq!(client.read(512, 4096).await.expect("read"), vec![3; 4096]);
    client.disconnect().await;
    let end = session.await.expect("no panic").expect("a clean end");
    assert_eq!(end, landfall_nbd::SessionEnd::ClientLeft);
}
