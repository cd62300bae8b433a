use crate::support::Site;
use bytes::{BufMut, Bytes};
use landfall_nbd::proto::constants::{
    OPT_GO, OPT_SET_META_CONTEXT, OPT_STRUCTURED_REPLY, REQUEST_MAGIC,
};
use landfall_nbd::proto::{InfoRequest, MetaContextRequest, put_option};
use landfall_nbd::testing::MemoryExport;
use landfall_nbd::{Client, ServerOptions};
use landfall_testkit::{Rng, seed};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const SIZE: usize = 1 << 20;

/// What a client sends that sees nothing of the answers.
pub(crate) fn session(export: &str, requests: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    put_option(&mut bytes, OPT_STRUCTURED_REPLY, b"");
    let queries = vec!["base:allocation".to_owned()];
    let meta = MetaContextRequest { name: export.into(), queries };
    put_option(&mut bytes, OPT_SET_META_CONTEXT, &meta.encode());
    let go = InfoRequest { name: export.into(), wanted: vec![3] };
    put_option(&mut bytes, OPT_GO, &go.encode());
    bytes.extend(requests.concat());
    bytes
}

/// One request's fixed part.
pub(crate) fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(REQUEST_MAGIC);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.below(5) {
        // One byte cut down to and then removed leaves nothing to change.
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(4) {
            0 => bytes[at] = rng.next_u64() as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, rng.next_u64() as u8),
            _ => bytes.truncate(at.max(1)),
        }
    }
}

fn good_session(rng: &mut Rng) -> Vec<u8> {
    let write = |cookie, length: usize| {
        let mut bytes = request(1, 1, cookie, 4096, length as u32);
        bytes.extend(vec![b'w'; length]);
        bytes
    };
    let requests = [
        request(0, 0, 1, 0, 4096),
        write(2, 4096),
        request(7, 8, 3, 0, 65536),
        request(6, 2, 4, 8192, 4096),
        write(5, 512 * (1 + rng.below(300)) as usize),
        request(4, 0, 6, 0, 1 << 20),
        request(3, 0, 7, 0, 0),
        request(0, 0, 8, 0, 0xffff_fe00),
        request(1, 0, 9, 0, 512),
        vec![b'p'; 512],
        request(2, 0, 0, 0, 0),
    ];
    session("m/0", &requests)
}

/// Sends bytes, reads all answers, and returns when the server has ended the session.
async fn converse(site: &Site, bytes: Vec<u8>) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    let server = site.server.clone();
    let serving = tokio::spawn(async move { server.serve(reader, writer).await });
    let (mut hear, mut say) = tokio::io::split(ours);
    let hearing = tokio::spawn(async move {
        let mut answers = Vec::new();
        let _ = hear.read_to_end(&mut answers).await;
    });
    // The server may be gone before it has read everything.
    let _ = say.write_all(&bytes).await;
    let _ = say.shutdown().await;
    // How it ended is the server's business; that it ended, without a panic, is ours.
    let _ = serving.await.expect("the session does not panic");
    hearing.await.expect("no panic");
}

/// No bytes of a client take the server down, or what it serves to others.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_sessions_harm_nobody() {
    let mut rng = Rng::new(seed("mutated_sessions_harm_nobody"));
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let options =
        ServerOptions { farewell_time_max: Duration::from_secs(1), ..ServerOptions::default() };
    let site = Site::with("m/0", export.clone(), options);
    let witness = Arc::new(MemoryExport::new(SIZE, 512));
    site.exports.insert("witness", witness);
    let other = site.client("witness").await;
    other.write(512, Bytes::from(vec![5; 512])).await.expect("written");
    for _ in 0..600 {
        let mut bytes = good_session(&mut rng);
        mutate(&mut bytes, &mut rng);
        converse(&site, bytes).await;
        assert_eq!(export.in_flight(), 0, "a session left a request behind");
    }
    assert_eq!(other.read(512, 512).await.expect("still served"), vec![5; 512]);
    assert!(export.counts().writes > 100, "the mutations never got through to the store");
}

/// A header that claims the largest payload and a client that then sends nothing.
#[tokio::test]
async fn a_payload_that_never_comes_ends_with_the_client() {
    let export = Arc::new(MemoryExport::new(64 << 20, 512));
    let site = Site::new("m/0", export.clone());
    for length in [32 << 20, (32 << 20) + 512, u32::MAX] {
        converse(&site, session("m/0", &[request(1, 0, 1, 0, length)])).await;
    }
    assert_eq!(export.counts().writes, 0);
}

/// A payload that is refused is passed over: the request behind it is still understood.
#[tokio::test]
async fn the_stream_stays_in_step_behind_a_refused_write() {
    let export = Arc::new(MemoryExport::view(&vec![6; SIZE], 512));
    let site = Site::new("m/0", export);
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let server = site.server.clone();
    tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(theirs);
        server.serve(reader, writer).await
    });
    let payload = vec![0; 300_000];
    let requests = [request(1, 0, 1, 0, 300_000), payload, request(0, 0, 2, 0, 512)];
    ours.write_all(&session("m/0", &requests)).await.expect("sent");
    ours.write_all(&request(2, 0, 0, 0, 0)).await.expect("sent");
    let mut answers = Vec::new();
    ours.read_to_end(&mut answers).await.expect("the server closes after the farewell");
    assert!(answers.ends_with(&[6; 512]), "the read behind the refused write is answered");
}

/// A server of our own making that says anything at all: the client neither panics nor waits for
/// ever.
#[tokio::test]
async fn a_client_survives_any_server() {
    let mut rng = Rng::new(seed("a_client_survives_any_server"));
    let recorded = record_server().await;
    let mut understood = 0;
    for _ in 0..400 {
        let mut bytes = recorded.clone();
        mutate(&mut bytes, &mut rng);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn(say(theirs, bytes));
        let (reader, writer) = tokio::io::split(ours);
        if let Ok(client) = Client::over(reader, writer, "m/0").await {
            let read = client.read(0, 4096);
            let status = client.block_status(0, 65536);
            let write = client.write(0, Bytes::from(vec![1; 512]));
            // Any outcome is fine, but there must be one.
            let outcomes = tokio::join!(read, status, write);
            let all = (outcomes.0.is_ok(), outcomes.1.is_ok(), outcomes.2.is_ok());
            understood += usize::from(all == (true, true, true));
        }
        serving.await.expect("no panic");
    }
    assert!(understood > 40, "only {understood} of 400 got through: the recording is no good");
}

async fn say(mut stream: DuplexStream, bytes: Vec<u8>) {
    // The client may hang up in the middle.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// What a real server answers to the client of [`a_client_survives_any_server`]: the cookies are
/// the same each time.
async fn record_server() -> Vec<u8> {
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    export.store(0, &[9; 8192]);
    let site = Site::new("m/0", export);
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let server = site.server.clone();
    tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(theirs);
        server.serve(reader, writer).await
    });
    let mut write = request(1, 0, 3, 0, 512);
    write.extend([1; 512]);
    let requests = [request(0, 0, 1, 0, 4096), request(7, 0, 2, 0, 65536), write];
    ours.write_all(&session("m/0", &requests)).await.expect("sent");
    ours.write_all(&request(2, 0, 0, 0, 0)).await.expect("sent");
    let mut answers = Vec::new();
    ours.read_to_end(&mut answers).await.expect("the server closes after the farewell");
    answers
}
