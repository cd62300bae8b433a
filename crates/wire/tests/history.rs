//! Batches compressed against what the connection has carried before.

use bytes::{Bytes, BytesMut};
use landfall_repl::{Batch, Message};
use landfall_testkit::{Rng, seed};
use landfall_types::{Chain, DiskIndex, Epoch, EpochId, Incarnation, Lsn, Record};
use landfall_wire::{Compression, DecodeError, Decoder, Encoder};

const PAGE: usize = 4096;

/// Both ends of one connection.
struct Ends {
    encoder: Encoder,
    decoder: Decoder,
}

impl Ends {
    fn new(compression: Compression, history_bytes: u64) -> Self {
        let (mut encoder, mut decoder) = (Encoder::new(compression), Decoder::default());
        encoder.agree(history_bytes);
        decoder.agree(history_bytes);
        Self { encoder, decoder }
    }
    /// Sends it; bytes on the wire.
    fn cross(&mut self, batch: &Batch, backlog: usize) -> usize {
        let message = Message::Batch(batch.clone());
        let frame = self.encoder.encode(&message, backlog).expect("within limits").concat();
        let arrived = self.decoder.decode(&mut BytesMut::from(&frame[..])).expect("ours");
        assert_eq!(arrived, Some(message));
        frame.len()
    }
}

fn batch(records: Vec<Record>) -> Batch {
    Batch {
        epoch: Epoch { number: 2, id: EpochId::new(0x22), parent: Some(EpochId::new(0x11)) },
        incarnation: Incarnation::new(7),
        chain_before: Chain::ROOT,
        source_position: 99,
        records,
    }
}

/// A database's pages: each is rewritten again and again with few bytes changed.
struct Pages {
    rng: Rng,
    pages: Vec<Vec<u8>>,
    lsn: u64,
}

impl Pages {
    fn new(seed: u64, count: usize) -> Self {
        let mut rng = Rng::new(seed);
        let mut page = || {
            let mut page = vec![0; PAGE];
            rng.fill(&mut page);
            page
        };
        let pages = (0..count).map(|_| page()).collect();
        Self { rng, pages, lsn: 0 }
    }
    fn churn(&mut self, writes: usize) -> Batch {
        let records = (0..writes).map(|_| {
            let number = self.rng.below(self.pages.len() as u64) as usize;
            let at = self.rng.below(PAGE as u64 - 200) as usize;
            self.rng.fill(&mut self.pages[number][at..at + 200]);
            self.lsn += 1;
            let data = Bytes::copy_from_slice(&self.pages[number]);
            Record::write(Lsn::new(self.lsn), DiskIndex(0), (number * PAGE) as u64, data)
        });
        batch(records.collect())
    }
}

/// B8: what a block held before is most of what it holds now.
#[test]
fn a_page_rewritten_costs_little_more_than_what_changed() {
    let mut pages = Pages::new(1, 200);
    let mut ends = Ends::new(Compression::Small, 8 << 20);
    let first = ends.cross(&pages.churn(1000), 0);
    assert!(first > 200 * PAGE, "noise: nothing to be gained the first time ({first})");
    let again = ends.cross(&pages.churn(100), 0);
    assert!(again < 100 * 400, "{again} bytes for 100 times 200 changed bytes");
}

/// Guards P4: whatever is written, in whatever order, both ends remember the same.
#[test]
fn both_ends_remember_the_same_whatever_is_written() {
    let mut rng = Rng::new(seed("both_ends_remember_the_same_whatever_is_written"));
    let mut lsn = 0;
    for _ in 0..40 {
        // Small enough that blocks are forgotten all the time.
        let history = rng.below(3) * 16 * PAGE as u64;
        let mut ends = Ends::new(Compression::Adaptive, history);
        for _ in 0..30 {
            let count = 1 + rng.below(12);
            let records = (lsn + 1..=lsn + count).map(|lsn| record(&mut rng, lsn)).collect();
            lsn += count;
            let batch = batch(records);
            let backlog = rng.below(2) as usize * 1000;
            ends.cross(&batch, backlog);
        }
    }
}

fn record(rng: &mut Rng, lsn: u64) -> Record {
    let (lsn, disk) = (Lsn::new(lsn), DiskIndex(rng.below(2) as u16));
    let offset = rng.below(64) * 512 * (1 + 7 * rng.below(2));
    match rng.below(8) {
        0 => Record::zero(lsn, disk, offset, 512 * (1 + rng.below(40))),
        1 => Record::discard(lsn, disk, 0, 1 << 40),
        _ => {
            let mut data = vec![rng.next_u64() as u8; 512 * (1 + rng.below(30)) as usize];
            let noisy = rng.below(data.len() as u64) as usize;
            rng.fill(&mut data[..noisy]);
            Record::write(lsn, disk, offset, Bytes::from(data))
        }
    }
}

/// A link that keeps up gets little of the processor's time, one that does not gets more, and both
/// ends agree all the time.
#[test]
fn an_adaptive_sender_follows_the_link() {
    let mut pages = Pages::new(2, 50);
    let mut ends = Ends::new(Compression::Adaptive, 8 << 20);
    ends.cross(&pages.churn(200), 0);
    let idle = ends.cross(&pages.churn(50), 0);
    let busy = ends.cross(&pages.churn(50), 100_000);
    assert!(busy * 4 < idle, "{busy} of {idle}");
    for _ in 0..20 {
        ends.cross(&pages.churn(1), 0);
    }
    assert!(ends.cross(&pages.churn(50), 0) > busy * 4, "the link keeps up again");
}

/// The second end has not heard the same: never a wrong record, always an error.
#[test]
fn another_history_is_noticed() {
    let mut pages = Pages::new(3, 20);
    let (mut ends, mut other) =
        (Ends::new(Compression::Small, 1 << 20), Ends::new(Compression::Small, 1 << 20));
    ends.cross(&pages.churn(60), 0);
    other.cross(&Pages::new(4, 20).churn(60), 0);
    let message = Message::Batch(pages.churn(20));
    let frame = ends.encoder.encode(&message, 0).expect("within limits").concat();
    let answer = other.decoder.decode(&mut BytesMut::from(&frame[..]));
    assert!(matches!(answer, Err(DecodeError::History { .. })), "{answer:?}");
    // And one that has agreed to remember nothing.
    let answer = Decoder::default().decode(&mut BytesMut::from(&frame[..]));
    assert!(matches!(answer, Err(DecodeError::Malformed { .. })), "{answer:?}");
}

/// A recorded session of version 2: what was written then is read today.
/// `UPDATE_GOLDEN=1` records a new one.
#[test]
fn a_recorded_session_is_still_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/session-v2.bin");
    let mut pages = Pages::new(5, 8);
    let batches: Vec<Batch> = (0..4).map(|_| pages.churn(16)).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let mut encoder = Encoder::new(Compression::Small);
        encoder.agree(1 << 20);
        let frames = batches.iter().flat_map(|batch| {
            encoder.encode(&Message::Batch(batch.clone()), 0).expect("within limits")
        });
        let stream: Vec<u8> = frames.flat_map(|part| part.to_vec()).collect();
        std::fs::write(path, stream).expect("writable");
    }
    let mut arrived = BytesMut::from(&std::fs::read(path).expect("a golden file")[..]);
    assert!(arrived.len() < 2 * 16 * PAGE, "it was compressed against the history");
    let mut decoder = Decoder::default();
    decoder.agree(1 << 20);
    for batch in batches {
        let read = decoder.decode(&mut arrived).expect("ours");
        assert_eq!(read, Some(Message::Batch(batch)));
    }
    assert!(arrived.is_empty());
}

/// No bytes make the decoder panic, whatever it remembers.
#[test]
fn mutated_batches_are_refused() {
    let mut rng = Rng::new(seed("mutated_batches_are_refused"));
    let mut pages = Pages::new(6, 8);
    let mut encoder = Encoder::new(Compression::Small);
    encoder.agree(1 << 20);
    let frame = |encoder: &mut Encoder, batch: Batch| {
        encoder.encode(&Message::Batch(batch), 0).expect("within limits").concat()
    };
    let (first, second) =
        (frame(&mut encoder, pages.churn(16)), frame(&mut encoder, pages.churn(16)));
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut decoder = Decoder::default();
        decoder.agree(1 << 20);
        decoder.decode(&mut BytesMut::from(&first[..])).expect("ours");
        let mut bytes = second.clone();
        for _ in 0..=rng.below(3) {
            let at = 20 + rng.below(bytes.len() as u64 - 20) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        refused += u32::from(decoder.decode(&mut BytesMut::from(&bytes[..])).is_err());
    }
    assert!(refused > 2_500, "only {refused} of 3000 were noticed");
}
