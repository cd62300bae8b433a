use crate::support::Site;
use bytes::Bytes;
use landfall_nbd::proto::Errno;
use landfall_nbd::testing::MemoryExport;
use landfall_nbd::{Client, ClientError, ServerOptions, SessionEnd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

const SIZE: usize = 1 << 20;

fn is_shutdown<T>(outcome: &Result<T, ClientError>) -> bool {
    matches!(outcome, Err(ClientError::Failed { errno: Errno::Shutdown, .. }))
}

/// T-17: authority moves only when no request of the old client can change the branch any more.
#[tokio::test]
async fn disconnect_waits_for_what_is_in_flight_and_answers_shutdown() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export.clone());
    let client = Arc::new(site.client("m/0").await);
    export.hold();
    let write = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.write(0, Bytes::from(vec![1; 512])).await }
    });
    export.wait_in_flight(1).await;
    export.revoke();
    let moving = tokio::spawn({
        let (server, export) = (site.server.clone(), export.clone());
        async move {
            server.disconnect("m/0").await;
            export.in_flight()
        }
    });
    tokio::task::yield_now().await;
    assert!(!moving.is_finished(), "a write is in flight");
    export.let_go();
    assert_eq!(moving.await.expect("no panic"), 0);
    let outcome = write.await.expect("no panic");
    assert!(is_shutdown(&outcome), "{outcome:?}");
    let later = client.read(0, 512).await;
    assert!(later.is_err(), "the session is over");
    let again = Client::connect_unix(&site.socket(), "m/0").await;
    assert!(matches!(again, Err(ClientError::Refused { .. })), "{again:?}");
}

#[tokio::test]
async fn a_revoked_export_is_noticed_at_the_next_request() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export.clone());
    let client = site.client("m/0").await;
    // Answered once, so that it is known to be past the negotiation.
    client.read(0, 512).await.expect("read");
    export.revoke();
    let outcome = client.write(0, Bytes::from(vec![1; 512])).await;
    assert!(is_shutdown(&outcome), "{outcome:?}");
    assert_eq!(export.counts().writes, 0, "the write never reached the store");
    assert!(matches!(client.read(0, 512).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn idle_clients_are_disconnected_and_others_are_not() {
    let (one, two) = (Arc::new(MemoryExport::new(SIZE, 512)), MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", one.clone());
    site.exports.insert("m/1", Arc::new(two));
    let (idle, other) = (site.client("m/0").await, site.client("m/1").await);
    // Answered once, so that both are known to be past the negotiation.
    idle.read(0, 512).await.expect("read");
    other.read(0, 512).await.expect("read");
    assert_eq!(site.server.connected(), ["m/0", "m/1"]);
    site.server.disconnect("m/0").await;
    assert_eq!(site.server.connected(), ["m/1"]);
    assert!(idle.read(0, 512).await.is_err());
    other.read(0, 512).await.expect("the other export is still served");
}

/// A client that does not take its answers must not hold up whoever takes authority away.
#[tokio::test]
async fn a_client_that_reads_nothing_does_not_delay_disconnect() {
    let export = Arc::new(MemoryExport::new(64 << 20, 512));
    let options =
        ServerOptions { farewell_time_max: Duration::from_secs(3600), ..ServerOptions::default() };
    let site = Site::with("m/0", export.clone(), options);
    let mut stream = UnixStream::connect(site.socket()).await.expect("connected");
    stream.write_all(&crate::malformed::session("m/0", &[])).await.expect("sent");
    for cookie in 0..4 {
        // Far more than a socket holds: the answers stay in the server.
        let read = crate::malformed::request(0, 0, cookie, 0, 8 << 20);
        stream.write_all(&read).await.expect("sent");
    }
    while export.counts().reads < 4 {
        tokio::task::yield_now().await;
    }
    export.revoke();
    site.server.disconnect("m/0").await;
    assert!(site.server.connected().is_empty());
}

#[tokio::test]
async fn shutdown_ends_sessions_and_negotiations_and_takes_no_more() {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new("m/0", export);
    let client = site.client("m/0").await;
    client.read(0, 512).await.expect("read");
    let (ours, theirs) = tokio::io::duplex(4096);
    let negotiating = tokio::spawn({
        let server = site.server.clone();
        async move {
            let (reader, writer) = tokio::io::split(theirs);
            server.serve(reader, writer).await
        }
    });
    site.server.shutdown().await;
    assert_eq!(negotiating.await.expect("no panic").expect("clean"), SessionEnd::Disconnected);
    drop(ours);
    assert!(client.read(0, 512).await.is_err());
    assert!(Client::connect_unix(&site.socket(), "m/0").await.is_err());
}
