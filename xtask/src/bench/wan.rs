//! B8: bytes over the wide area for recorded churn. No clock: the same bytes each time.

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::pairs::Spread;
use super::scratch;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use landfall_repl::{Batch, Message};
use landfall_types::{Chain, DiskIndex, Epoch, EpochId, Incarnation, Lsn, Record};
use landfall_wire::{Compression, Encoder};
use std::collections::HashMap;
use std::io::Write as _;
use std::process::Command;

const BLOCK: usize = 4096;
/// As a process server remembers on the link that crosses the wide area.
const HISTORY_BYTES: u64 = landfall_repl::limits::HISTORY_BYTES_MAX;
const CHURN: &str = include_str!("churn.py");
/// Of the peer: what the goals name.
const PEER_LEVEL: i32 = 3;

/// One write of the recording.
struct Write {
    offset: u64,
    data: Bytes,
}

pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let transactions = if *effort == Effort::Quick { 400 } else { 4_000 };
    let database = database(transactions)?;
    let (load, churn) = database;
    let files = files()?;
    let mut figures = Vec::new();
    for (batch_bytes, label) in [(1 << 20, "1m"), (64 << 10, "64k")] {
        let wire = Crossing::new().bytes_after(&load, &churn, batch_bytes)?;
        let stream = one_stream(&load, &churn)?;
        figures.push(figure("database", label, Goal::AtMost(0.6), wire, stream));
    }
    let wire = Crossing::new().bytes_after(&[], &files, 1 << 20)?;
    let stream = one_stream(&[], &files)?;
    figures.push(figure("files", "1m", Goal::AtMost(1.05), wire, stream));
    let all: Vec<&Write> = load.iter().chain(&churn).collect();
    let once = each_block_once(&churn)?;
    let wire = Crossing::new().once(&all, &churn)?;
    let about = About {
        id: "B8.catch-up.database".into(),
        measure: "bytes of changed blocks, each sent once".into(),
        peer: "zstd -3 of each changed 4 KiB block once".into(),
        unit: "ratio",
        goal: Goal::AtMost(1.05),
    };
    figures.push(about.measured(single(wire, once), note(wire, once)));
    Ok(figures)
}

fn figure(what: &str, batch: &str, goal: Goal, wire: u64, peer: u64) -> Figure {
    let about = About {
        id: format!("B8.data.{what}.{batch}"),
        measure: "bytes on the wire in data mode, frames and headers included".into(),
        peer: "zstd -3 of every write as one stream".into(),
        unit: "ratio",
        goal,
    };
    about.measured(single(wire, peer), note(wire, peer))
}

fn single(ours: u64, peer: u64) -> Spread {
    let median = ours as f64 / peer as f64;
    Spread { median, least: median, most: median }
}

fn note(ours: u64, peer: u64) -> String {
    format!("{} KiB on the wire, {} KiB of the peer", ours >> 10, peer >> 10)
}

/// What the load wrote, and what the transactions after it wrote, in order.
fn database(transactions: u32) -> Result<(Vec<Write>, Vec<Write>)> {
    let scratch = scratch::directory()?;
    let (db, out) = (scratch.path().join("ledger.db"), scratch.path().join("writes"));
    let status = Command::new("python3")
        .args(["-c", CHURN])
        .args([db.as_os_str(), out.as_os_str()])
        .arg(transactions.to_string())
        .status()
        .context("python3 makes the recording")?;
    if !status.success() {
        bail!("the recording failed: {status}");
    }
    let recording = std::fs::read(&out).context("the recording")?;
    let mut writes = Vec::new();
    for one in recording.chunks_exact(8 + BLOCK) {
        let offset = u64::from_le_bytes(one[..8].try_into().expect("8 bytes"));
        writes.push(Write { offset, data: Bytes::copy_from_slice(&one[8..]) });
    }
    // The load writes each block once, in order; the first that goes back belongs to the churn.
    let load = writes.windows(2).take_while(|pair| pair[0].offset < pair[1].offset).count() + 1;
    let churn = writes.split_off(load);
    Ok((writes, churn))
}

/// A program is installed: large writes of what was never there before.
fn files() -> Result<Vec<Write>> {
    let program = std::fs::read(std::env::current_exe()?).context("our own program")?;
    let pieces = program.chunks(64 << 10).take(256).enumerate();
    let write = |(at, data): (usize, &[u8])| Write {
        offset: (at as u64) << 16,
        data: Bytes::copy_from_slice(data),
    };
    Ok(pieces.map(write).collect())
}

/// One connection, seen from its sender.
struct Crossing {
    encoder: Encoder,
    lsn: u64,
}

impl Crossing {
    fn new() -> Self {
        let mut encoder = Encoder::new(Compression::Small);
        encoder.agree(HISTORY_BYTES);
        Self { encoder, lsn: 0 }
    }

    /// Bytes of `writes`, behind `before`, in batches of about so many bytes.
    fn bytes_after(&mut self, before: &[Write], writes: &[Write], batch: usize) -> Result<u64> {
        self.send(before.iter(), batch)?;
        self.send(writes.iter(), batch)
    }

    /// Bytes of the newest content of each block of `changed`, in disk order, behind `all`.
    fn once(&mut self, all: &[&Write], changed: &[Write]) -> Result<u64> {
        let newest: HashMap<u64, &Write> = all.iter().map(|one| (one.offset, *one)).collect();
        let mut offsets: Vec<u64> = changed.iter().map(|one| one.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        self.send(offsets.iter().map(|offset| newest[offset]), 1 << 20)
    }

    fn send<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write>,
        batch_bytes: usize,
    ) -> Result<u64> {
        let (mut records, mut held, mut sent) = (Vec::new(), 0, 0);
        for write in writes {
            self.lsn += 1;
            let lsn = Lsn::new(self.lsn);
            held += write.data.len();
            records.push(Record::write(lsn, DiskIndex(0), write.offset, write.data.clone()));
            if held >= batch_bytes {
                sent += self.frame(std::mem::take(&mut records))?;
                held = 0;
            }
        }
        if !records.is_empty() {
            sent += self.frame(records)?;
        }
        Ok(sent)
    }

    fn frame(&mut self, records: Vec<Record>) -> Result<u64> {
        let batch = Batch {
            epoch: Epoch { number: 1, id: EpochId::new(1), parent: None },
            incarnation: Incarnation::new(1),
            chain_before: Chain::ROOT,
            source_position: 0,
            records,
        };
        let frame = self.encoder.encode(&Message::Batch(batch), 1)?;
        Ok(frame.iter().map(|part| part.len() as u64).sum())
    }
}

/// Bytes that `writes` add to a stream which began with `before`.
fn one_stream(before: &[Write], writes: &[Write]) -> Result<u64> {
    let length = |writes: &mut dyn Iterator<Item = &Write>| -> Result<u64> {
        let mut stream = zstd::stream::Encoder::new(Vec::new(), PEER_LEVEL)?;
        for write in writes {
            stream.write_all(&write.data)?;
        }
        Ok(stream.finish()?.len() as u64)
    };
    let whole = length(&mut before.iter().chain(writes))?;
    Ok(whole - length(&mut before.iter())?)
}

/// zstd of the newest content of each block, one after the other, each by itself.
fn each_block_once(writes: &[Write]) -> Result<u64> {
    let newest: HashMap<u64, &Write> = writes.iter().map(|one| (one.offset, one)).collect();
    let mut sum = 0;
    for write in newest.values() {
        sum += zstd::bulk::compress(&write.data, PEER_LEVEL)?.len() as u64;
    }
    Ok(sum)
}
