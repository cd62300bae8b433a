use crate::malformed::{request, session};
use crate::support::Site;
use landfall_nbd::testing::MemoryExport;
use landfall_nbd::{Client, ServerOptions, SessionError};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SIZE: usize = 16 << 20;

/// Whoever asks for more than the bounds waits, is served in the end, and leaves others alone.
#[tokio::test]
async fn requests_in_flight_are_bounded_by_count() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options = ServerOptions { requests_in_flight_max: 4, ..ServerOptions::default() };
    let site = Site::with("m/0", export.clone(), options);
    let client = Arc::new(site.client("m/0").await);
    let other = site.client("m/0").await;
    export.hold();
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.read(0, 512).await })
        })
        .collect();
    export.wait_in_flight(4).await;
    // The other client still gets in, though the first has 28 requests waiting.
    let beside = tokio::spawn(async move { other.read(0, 512).await });
    export.wait_in_flight(5).await;
    assert_eq!(export.in_flight(), 5);
    export.let_go();
    beside.await.expect("no panic").expect("read");
    for call in calls {
        call.await.expect("no panic").expect("read");
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded_by_bytes() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options = ServerOptions { bytes_in_flight_max: 1 << 20, ..ServerOptions::default() };
    let site = Site::with("m/0", export.clone(), options);
    let client = Arc::new(site.client("m/0").await);
    export.hold();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.read(0, 400 << 10).await })
        })
        .collect();
    export.wait_in_flight(2).await;
    export.let_go();
    for call in calls {
        call.await.expect("no panic").expect("read");
    }
    // One that is larger than the bound goes alone rather than never.
    client.read(0, 8 << 20).await.expect("read");
}

/// Answers that nobody reads count as well: the server stops reading requests, and its memory is
/// bounded.
#[tokio::test]
async fn a_client_that_reads_nothing_is_stopped() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options = ServerOptions { bytes_in_flight_max: 4 << 20, ..ServerOptions::default() };
    let site = Site::with("m/0", export.clone(), options);
    let mut greedy = UnixStream::connect(site.socket()).await.expect("connected");
    greedy.write_all(&session("m/0", &[])).await.expect("sent");
    for cookie in 0..64 {
        greedy.write_all(&request(0, 0, cookie, 0, 1 << 20)).await.expect("sent");
    }
    while export.counts().reads == 0 {
        tokio::task::yield_now().await;
    }
    let other = site.client("m/0").await;
    for _ in 0..64 {
        other.read(0, 4096).await.expect("others are served");
    }
    let beside = 64;
    let greedy_reads = export.counts().reads - beside;
    assert!((1..=4).contains(&greedy_reads), "{greedy_reads} MiB are held for it");
}

/// Refusals need no store, but a place: nonsense without end is stopped too.
#[tokio::test]
async fn nonsense_without_end_is_stopped() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options = ServerOptions { requests_in_flight_max: 8, ..ServerOptions::default() };
    let site = Site::with("m/0", export, options);
    let mut flood = UnixStream::connect(site.socket()).await.expect("connected");
    flood.write_all(&session("m/0", &[])).await.expect("sent");
    let nonsense = request(99, 0, 1, 0, 512).repeat(1000);
    let mut sent = 0_usize;
    // Ends when nothing moves any more: the server neither reads nor holds more.
    while tokio::time::timeout(Duration::from_millis(300), flood.write_all(&nonsense)).await.is_ok()
    {
        sent += 1;
        assert!(sent < 2000, "the server swallows nonsense without end");
    }
    site.client("m/0").await.read(0, 512).await.expect("others are served");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_chooses_no_export_is_dropped() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export);
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(theirs);
    let server = site.server.clone();
    let session = tokio::spawn(async move { server.serve(reader, writer).await });
    let mut greeting = [0; 18];
    ours.read_exact(&mut greeting).await.expect("a greeting");
    let outcome = session.await.expect("no panic");
    assert!(matches!(outcome, Err(SessionError::NegotiationTime(_))), "{outcome:?}");
}

#[tokio::test]
async fn connections_are_bounded() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options = ServerOptions { connections_max: 2, ..ServerOptions::default() };
    let site = Site::with("m/0", export, options);
    let (one, _two) = (site.client("m/0").await, site.client("m/0").await);
    assert!(Client::connect_unix(&site.socket(), "m/0").await.is_err());
    one.disconnect().await;
    // The place is given back shortly after the farewell; until then clients are turned away.
    while Client::connect_unix(&site.socket(), "m/0").await.is_err() {
        tokio::task::yield_now().await;
    }
}
