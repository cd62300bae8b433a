//! All of it against a plain array of bytes with every version.

use crate::build::RunIdentity;
use crate::piece::CHUNK_BYTES;
use crate::*;
use landfall_testkit::{Rng, seed};
use landfall_types::{ByteRange, DiskIndex, LogId, Lsn, RecordHeader, RecordKind};
use std::sync::Arc;

const DISK: u64 = 12 * CHUNK_BYTES;
const UNIT: u64 = 512;

/// Runs a test with many seeds, the first one printed.
fn repeat(name: &str, times: u64, test: impl Fn(&mut Rng)) {
    let first = seed(name);
    for n in 0..times {
        test(&mut Rng::new(first.wrapping_add(n)));
    }
}

/// A number from `from` up to below `to`.
fn pick<T: TryInto<u64> + TryFrom<u64>>(rng: &mut Rng, from: T, to: T) -> T {
    let number = |n: T| n.try_into().ok().expect("a small number");
    let (from, to) = (number(from), number(to));
    T::try_from(from + rng.below(to - from)).ok().expect("a small number")
}

/// A run file in memory.
#[derive(Clone, Debug)]
struct Bytes {
    footer: Footer,
    bytes: Arc<Vec<u8>>,
}

impl Pages for Bytes {
    type Error = Damaged;
    fn page(&self, number: u32) -> Result<Arc<Page>, Damaged> {
        let at = number as usize * PAGE_BYTES;
        let bytes = self.bytes.get(at..at + PAGE_BYTES).and_then(|b| b.try_into().ok());
        let page: Page = bytes.ok_or(Damaged { page: number, what: "its end" })?;
        Run::<Self>::check(&self.footer, &page, number)?;
        Ok(Arc::new(page))
    }
}

/// Either kind, as the shell has it.
#[derive(Clone, Debug)]
enum Any {
    Memory(Arc<MemoryRun>),
    File(Run<Bytes>),
}

impl Source for Any {
    type Error = Damaged;
    fn pieces(&self) -> u32 {
        match self {
            Self::Memory(run) => run.pieces(),
            Self::File(run) => run.pieces(),
        }
    }
    fn classes(&self) -> u64 {
        match self {
            Self::Memory(run) => run.classes(),
            Self::File(run) => run.classes(),
        }
    }
    fn rank(&self, key: &piece::Key) -> Result<u32, Damaged> {
        match self {
            Self::Memory(run) => Ok(run.rank(key).expect("memory")),
            Self::File(run) => run.rank(key),
        }
    }
    fn get(&self, number: u32) -> Result<Piece, Damaged> {
        match self {
            Self::Memory(run) => Ok(run.get(number).expect("memory")),
            Self::File(run) => run.get(number),
        }
    }
}

fn file(bytes: Vec<u8>) -> Result<Run<Bytes>, Damaged> {
    let number = (bytes.len() / PAGE_BYTES) as u32 - 1;
    let last: Page = bytes[bytes.len() - PAGE_BYTES..].try_into().expect("a page");
    let footer = Footer::decode(&last, number)?;
    Ok(Run::new(footer, Bytes { footer, bytes: Arc::new(bytes) }))
}

fn build(mut pieces: Merge<Any>, after: u64, through: u64) -> Vec<u8> {
    let identity = RunIdentity {
        log: LogId::from_bytes([3; 16]),
        salt: after * 31 + 7,
        after: Lsn::new(after),
        through: Lsn::new(through),
    };
    let mut builder = RunBuilder::new(identity);
    let mut out = Vec::new();
    while let Some(piece) = pieces.next_piece().expect("intact") {
        builder.push(piece, &mut out).expect("in order");
    }
    let footer = builder.finish(1, &mut out);
    assert_eq!(footer.pieces, file(out.clone()).expect("intact").footer().pieces);
    out
}

/// A disk where some places are written again and again.
fn records(rng: &mut Rng, count: u64) -> Vec<Item> {
    let item = |lsn: u64, rng: &mut Rng| {
        let hot = rng.one_in(3);
        let start = if hot { 4096 } else { pick(rng, 0, DISK / UNIT) * UNIT };
        let huge = rng.one_in(20);
        let most = if huge { DISK } else { 200 * UNIT };
        let units = if hot { pick(rng, 1, 12) } else { pick(rng, 1, most / UNIT) };
        let kind = match pick(rng, 0, 8) {
            0 => RecordKind::Zero,
            1 => RecordKind::Discard,
            _ if huge => RecordKind::Zero,
            _ => RecordKind::Write,
        };
        let header = RecordHeader {
            kind,
            catch_up: lsn.is_multiple_of(7),
            disk: DiskIndex(lsn.is_multiple_of(11).into()),
            payload_crc: lsn as u32,
            lsn: Lsn::new(lsn),
            offset: start,
            length: (units * UNIT).min(DISK - start),
        };
        Item { header, segment: lsn / 50, at: (lsn * 3) as u32 }
    };
    (1..=count).map(|lsn| item(lsn, rng)).collect()
}

/// The newest record up to `through` of each sector.
fn oracle(items: &[Item], disk: DiskIndex, after: u64, through: u64) -> Vec<Option<u64>> {
    let mut sectors = vec![None; (DISK / UNIT) as usize];
    for item in &items[after as usize..through as usize] {
        let range = item.header.range().filter(|_| item.header.disk == disk);
        if let Some(range) = range {
            let sectors = &mut sectors[(range.start / UNIT) as usize..(range.end / UNIT) as usize];
            sectors.fill(Some(item.header.lsn.get()));
        }
    }
    sectors
}

fn painted(extents: &[Extent<u8>], items: &[Item], sectors: &mut [Option<u64>]) {
    for Extent { range, holder, .. } in extents {
        let item = &items[holder.lsn.get() as usize - 1];
        assert_eq!(Some(*holder), item.holder(), "the holder is the record, whole");
        for sector in range.start / UNIT..range.end / UNIT {
            assert_eq!(sectors[sector as usize], None, "no stretch twice");
            sectors[sector as usize] = Some(holder.lsn.get());
        }
    }
}

type Layers = Vec<Layer<Any, u8>>;

/// Runs over all records: some in memory, some as files, some merged.
fn layers(rng: &mut Rng, items: &[Item]) -> Vec<(Any, u64, u64)> {
    let mut out: Vec<(Any, u64, u64)> = Vec::new();
    let mut at = 0;
    while at < items.len() {
        let to = (at + pick(rng, 1, 120)).min(items.len());
        let memory = Any::Memory(Arc::new(MemoryRun::new(&items[at..to])));
        out.push((memory, at as u64, to as u64));
        at = to;
    }
    while out.len() > 1 && !rng.one_in(6) {
        let from = pick(rng, 0, out.len());
        let to = (from + pick(rng, 1, 5)).min(out.len());
        let (after, through) = (out[from].1, out[to - 1].2);
        let sources = out[from..to].iter().map(|(run, _, _)| run.clone());
        let merged = build(Merge::new(sources, Lsn::ZERO).expect("intact"), after, through);
        let run = Any::File(file(merged).expect("intact"));
        out.splice(from..to, [(run, after, through)]);
    }
    out
}

fn cut(runs: &[(Any, u64, u64)], after: u64, through: u64) -> Layers {
    let wanted = runs.iter().filter(|(_, a, t)| *t > after && *a < through);
    wanted
        .map(|(run, _, _)| Layer {
            source: run.clone(),
            tag: 0,
            after: Lsn::new(after),
            through: Lsn::new(through),
        })
        .collect()
}

/// Guards P4: at any position the index says of every sector what an array of all versions says.
#[test]
fn agrees_with_an_array_at_every_position() {
    repeat("agrees_with_an_array_at_every_position", 60, |rng| {
        let items = records(rng, 500);
        let runs = layers(rng, &items);
        for _ in 0..12 {
            let through = pick(rng, 1, 501);
            let after = pick(rng, 0, through);
            let layers = cut(&runs, after, through);
            for disk in [DiskIndex(0), DiskIndex(1)] {
                let want = oracle(&items, disk, after, through);
                let mut found = vec![None; want.len()];
                for chunk in (0..DISK).step_by(CHUNK_BYTES as usize) {
                    let part = resolve(&layers, disk, chunk, &[], Lsn::ZERO).expect("intact");
                    painted(&part, &items, &mut found);
                }
                assert_eq!(found, want, "resolved behind {after} up to {through}");

                let mut found = vec![None; want.len()];
                let whole = ByteRange { start: 0, end: DISK };
                let mut sweep = Sweep::new(disk, whole);
                let mut end = 0;
                while let Some(extent) = sweep.next_extent(&layers).expect("intact") {
                    assert!(extent.range.start >= end && !extent.range.is_empty());
                    end = extent.range.end;
                    painted(&[extent], &items, &mut found);
                }
                assert_eq!(found, want, "swept behind {after} up to {through}");
            }
        }
    });
}

/// An answer goes on from an older one as if it had been asked at once.
#[test]
fn an_answer_goes_on_from_an_older_one() {
    repeat("an_answer_goes_on_from_an_older_one", 60, |rng| {
        let items = records(rng, 300);
        let runs = layers(rng, &items);
        let disk = DiskIndex(0);
        for chunk in (0..DISK).step_by(CHUNK_BYTES as usize) {
            let mut known: Vec<Extent<u8>> = vec![];
            let mut known_through = Lsn::ZERO;
            let mut through = 0;
            while through < 300 {
                through = (through + pick(rng, 1, 90)).min(300);
                let layers = cut(&runs, 0, through);
                known = resolve(&layers, disk, chunk, &known, known_through).expect("intact");
                known_through = Lsn::new(through);
                let fresh = resolve(&layers, disk, chunk, &[], Lsn::ZERO).expect("intact");
                assert_eq!(known, fresh);
            }
        }
    });
}

/// Whatever byte of a run file is changed: it is noticed, or nothing that was asked for depends on
/// it. Never a panic, never another answer.
#[test]
fn a_damaged_page_is_never_believed() {
    repeat("a_damaged_page_is_never_believed", 40, |rng| {
        let items = records(rng, 400);
        let memory = Any::Memory(Arc::new(MemoryRun::new(&items)));
        let good = build(Merge::new([memory], Lsn::ZERO).expect("intact"), 0, 400);
        let want = oracle(&items, DiskIndex(0), 0, 400);
        for _ in 0..30 {
            let mut bad = good.clone();
            let at = pick(rng, 0, bad.len());
            if rng.one_in(4) && bad.len() > 2 * PAGE_BYTES {
                // A page in another's place.
                let from = pick(rng, 0, bad.len() / PAGE_BYTES) * PAGE_BYTES;
                let to = at / PAGE_BYTES * PAGE_BYTES;
                bad.copy_within(from..from + PAGE_BYTES, to);
            } else {
                bad[at] ^= 1 << pick(rng, 0, 8);
            }
            let Ok(run) = file(bad) else { continue };
            let layers = cut(&[(Any::File(run), 0, 400)], 0, 400);
            let mut found = vec![None; want.len()];
            let mut damaged = false;
            for chunk in (0..DISK).step_by(CHUNK_BYTES as usize) {
                match resolve(&layers, DiskIndex(0), chunk, &[], Lsn::ZERO) {
                    Ok(part) => painted(&part, &items, &mut found),
                    Err(Damaged { .. }) => damaged = true,
                }
            }
            assert!(damaged || found == want);
        }
    });
}

/// A block with 10⁵ versions, and a discard of a whole disk of 2⁶² bytes, cost a handful of pages.
#[test]
fn hot_blocks_and_huge_discards_cost_little() {
    let header = |lsn: u64, kind, offset, length| RecordHeader {
        kind,
        catch_up: false,
        disk: DiskIndex(0),
        payload_crc: 0,
        lsn: Lsn::new(lsn),
        offset,
        length,
    };
    let mut items = vec![
        Item { header: header(1, RecordKind::Discard, 0, 1 << 62), segment: 0, at: 0 },
        Item { header: header(2, RecordKind::Write, 4096, 16384), segment: 0, at: 0 },
    ];
    let hot = |lsn| Item { header: header(lsn, RecordKind::Write, 4096, 4096), segment: 0, at: 0 };
    items.extend((3..100_003).map(hot));
    let run = Any::Memory(Arc::new(MemoryRun::new(&items)));
    let bytes = build(Merge::new([run], Lsn::ZERO).expect("intact"), 0, 100_002);
    let run = file(bytes).expect("intact");
    let counted = Counted { run, reads: std::cell::Cell::new(0) };
    for through in [1, 2, 3, 50_000, 100_002] {
        counted.reads.set(0);
        let layer =
            Layer { source: &counted, tag: 0_u8, after: Lsn::ZERO, through: Lsn::new(through) };
        let layers = [layer];
        let found = resolve(&layers, DiskIndex(0), 0, &[], Lsn::ZERO).expect("intact");
        let want = match through {
            1 => 1,
            2 => 3,
            _ => 4,
        };
        assert_eq!(found.len(), want, "{found:?}");
        let mut sweep = Sweep::new(DiskIndex(0), ByteRange { start: 0, end: 1 << 62 });
        let mut extents = 0;
        while sweep.next_extent(&layers).expect("intact").is_some() {
            extents += 1;
        }
        assert_eq!(extents, want);
        assert!(counted.reads.get() < 800, "{} at {through}", counted.reads.get());
    }
}

struct Counted {
    run: Run<Bytes>,
    reads: std::cell::Cell<u32>,
}

impl Source for &Counted {
    type Error = Damaged;
    fn pieces(&self) -> u32 {
        self.run.pieces()
    }
    fn classes(&self) -> u64 {
        self.run.classes()
    }
    fn rank(&self, key: &piece::Key) -> Result<u32, Damaged> {
        self.reads.set(self.reads.get() + 1);
        self.run.rank(key)
    }
    fn get(&self, number: u32) -> Result<Piece, Damaged> {
        self.reads.set(self.reads.get() + 1);
        self.run.get(number)
    }
}
