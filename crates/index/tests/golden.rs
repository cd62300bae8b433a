//! Bytes that were written once and must be read for ever: a run file of two leaves.
//!
//! `LANDFALL_WRITE_GOLDEN=1` writes it anew, after a deliberate change of the format.

use landfall_index::{
    Damaged, Footer, Item, Layer, MemoryRun, Merge, PAGE_BYTES, Page, Pages, Run, RunBuilder,
    RunIdentity, Source, resolve,
};
use landfall_types::{DiskIndex, LogId, Lsn, RecordHeader, RecordKind};
use std::path::PathBuf;
use std::sync::Arc;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/run-v1.bin")
}

/// LSN 11 to 130: a write over two chunks, a discard of 1 GiB, versions of one block.
fn items() -> Vec<Item> {
    let item = |lsn: u64, kind, disk, offset, length| Item {
        header: RecordHeader {
            kind,
            catch_up: lsn == 11,
            disk: DiskIndex(disk),
            payload_crc: 0x0c0c_0000 | u32::try_from(lsn).expect("small"),
            lsn: Lsn::new(lsn),
            offset,
            length,
        },
        segment: 5,
        at: u32::try_from(lsn * 512).expect("small"),
    };
    let mut items = vec![
        item(11, RecordKind::Write, 0, 61_440, 8192),
        item(12, RecordKind::Discard, 1, 0, 1 << 30),
        item(13, RecordKind::Zero, 1, 512, 512),
    ];
    items.extend((14..=130).map(|lsn| item(lsn, RecordKind::Write, 1, 4096, 512 + lsn % 3 * 512)));
    items
}

fn identity() -> RunIdentity {
    RunIdentity {
        log: LogId::from_bytes([7; 16]),
        salt: 0x1122_3344_5566_7788,
        after: Lsn::new(10),
        through: Lsn::new(130),
    }
}

fn build() -> Vec<u8> {
    let memory = MemoryRun::new(&items());
    let mut merge = Merge::new([memory], Lsn::ZERO).expect("memory");
    let mut builder = RunBuilder::new(identity());
    let mut out = Vec::new();
    while let Some(piece) = merge.next_piece().expect("memory") {
        builder.push(piece, &mut out).expect("in order");
    }
    builder.finish(99, &mut out);
    out
}

#[derive(Debug)]
struct InMemory(Vec<u8>);

impl InMemory {
    fn at(&self, number: u32) -> Page {
        let at = number as usize * PAGE_BYTES;
        self.0[at..at + PAGE_BYTES].try_into().expect("a page")
    }
}

impl Pages for InMemory {
    type Error = Damaged;
    fn page(&self, number: u32) -> Result<Arc<Page>, Damaged> {
        Ok(Arc::new(self.at(number)))
    }
}

#[test]
fn a_run_file_of_version_1_is_read() {
    if std::env::var_os("LANDFALL_WRITE_GOLDEN").is_some() {
        std::fs::write(path(), build()).expect("write");
    }
    let bytes = std::fs::read(path()).expect("the golden file");
    assert_eq!(bytes, build(), "what is written now");
    let pages = InMemory(bytes);
    let last = u32::try_from(pages.0.len() / PAGE_BYTES).expect("small") - 1;
    let footer = Footer::decode(&pages.at(last), last).expect("intact");
    assert_eq!(footer.identity, identity());
    assert_eq!((footer.pieces, footer.leaves(), footer.written_bytes, last), (121, 2, 99, 3));
    for number in 0..last {
        Run::<InMemory>::check(&footer, &pages.at(number), number).expect("intact");
    }
    let run = Arc::new(Run::new(footer, pages));
    let layers = [Layer { source: Shared(run), tag: (), after: Lsn::ZERO, through: Lsn::new(20) }];
    let found = resolve(&layers, DiskIndex(1), 0, &[], Lsn::ZERO).expect("intact");
    let told: Vec<_> = found
        .iter()
        .map(|e| (e.range.start, e.range.end, e.holder.lsn.get(), e.holder.payload.is_some()))
        .collect();
    let expected = [
        (0, 512, 12, false),
        (512, 1024, 13, false),
        (1024, 4096, 12, false),
        (4096, 5632, 20, true),
        (5632, 65536, 12, false),
    ];
    assert_eq!(told, expected);
    let payload = found[3].holder.payload.expect("a write");
    assert_eq!((payload.segment, payload.at, payload.crc), (5, 20 * 512, 0x0c0c_0014));
}

#[derive(Debug)]
struct Shared(Arc<Run<InMemory>>);

impl Source for Shared {
    type Error = Damaged;
    fn pieces(&self) -> u32 {
        self.0.pieces()
    }
    fn classes(&self) -> u64 {
        self.0.classes()
    }
    fn rank(&self, key: &landfall_index::Key) -> Result<u32, Damaged> {
        self.0.rank(key)
    }
    fn get(&self, number: u32) -> Result<landfall_index::Piece, Damaged> {
        self.0.get(number)
    }
}
