//! Bytes that were written once and must be read for ever: a log, and the vectors of
//! `docs/formats/records.md`.
//!
//! `LANDFALL_WRITE_GOLDEN=1` writes the log anew, after a deliberate change of the format.

use landfall_blockdev::sim::SimMedium;
use landfall_journal::{Log, LogConfig, Stamp, TailVerdict};
use landfall_types::control::Geometry;
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Marker, MarkerKind, Record,
    RecordHeader, ReplicaId, WindowClose, WindowId, WindowMode, WindowOpen, WindowReason,
};
use std::path::PathBuf;

const PLAIN: &str = "log-v1";
const SEALED: &str = "log-v1-sealed";

fn directory(which: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(which)
}

/// The key of the sealed log: 32 times 5e.
fn medium(which: &str) -> SimMedium {
    if which == SEALED { SimMedium::sealed(512) } else { SimMedium::new(512).with_key(None) }
}

fn epoch() -> Epoch {
    Epoch { number: 2, id: EpochId::new(0xe2), parent: Some(EpochId::new(0xe1)) }
}

fn marker() -> Control {
    let (kind, name) = (MarkerKind::User, Some("ab".to_owned()));
    Control::Marker(Marker { kind, time_unix_ns: 258, name, group: None })
}

/// The records of the log, LSN 11 to 42: of every kind, over two segments.
fn records() -> Vec<Record> {
    let mut records = vec![
        Record::write(Lsn::new(11), DiskIndex(0), 4096, vec![0xaa; 1000].into()),
        Record::zero(Lsn::new(12), DiskIndex(1), 1 << 40, 1 << 30),
        Record::discard(Lsn::new(13), DiskIndex(1), 512, 512),
        Record::control(Lsn::new(14), &marker()),
        Record::write(Lsn::new(15), DiskIndex(2), 0, vec![1].into()).as_catch_up(),
    ];
    for lsn in 16..=42_u8 {
        let data = vec![lsn; 300].into();
        records.push(Record::write(Lsn::new(lsn.into()), DiskIndex(0), 512 * u64::from(lsn), data));
    }
    records
}

fn write_golden(which: &str) {
    let medium = medium(which);
    let config = LogConfig {
        log: LogId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([2; 16]),
        epoch: epoch(),
        base: Lsn::new(10),
        base_chain: Chain::from_bytes([3; 16]),
        segment_bytes: 8192,
    };
    let log = Log::create(medium.root(), config).expect("create");
    let stamp = Stamp { epoch: epoch(), incarnation: Incarnation::new(0x1c), source_position: 77 };
    for records in records().chunks(4) {
        log.append(stamp, records).and_then(|()| log.flush()).expect("append");
    }
    log.close().expect("close");
    std::fs::create_dir_all(directory(which)).expect("mkdir");
    for (name, length) in medium.files() {
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        medium.root().open(&name).and_then(|file| file.read_at(0, &mut bytes)).expect("read");
        std::fs::write(directory(which).join(name), bytes).expect("write");
    }
}

fn load(which: &str) -> SimMedium {
    let medium = medium(which);
    for entry in std::fs::read_dir(directory(which)).expect("the golden files are there") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("a name");
        let bytes = std::fs::read(entry.path()).expect("read");
        medium.root().create(&name).and_then(|file| file.write_at(0, &bytes)).expect("write");
    }
    medium
}

#[test]
fn the_log_of_version_1_is_read() {
    is_read(PLAIN);
}

#[test]
fn the_sealed_log_of_version_1_is_read() {
    is_read(SEALED);
}

fn is_read(which: &str) {
    if std::env::var("LANDFALL_WRITE_GOLDEN").is_ok_and(|value| value == "1") {
        write_golden(which);
    }
    let (log, report) = Log::open(load(which).root()).expect("open");
    assert_eq!(
        (report.tail, report.indexes_rebuilt, report.floor),
        (TailVerdict::Ends, 0, Lsn::new(42))
    );
    assert_eq!(log.id(), LogId::from_bytes([1; 16]));
    assert_eq!(log.replica(), ReplicaId::from_bytes([2; 16]));
    assert_eq!(log.base(), (Lsn::new(10), Chain::from_bytes([3; 16])));
    assert!(log.stat().segments.len() >= 2);
    let entries = log.entries(Lsn::new(10), Lsn::new(42)).expect("entries");
    let found: Vec<Record> = entries
        .iter()
        .map(|entry| Record { header: entry.header, payload: log.read(entry).expect("read") })
        .collect();
    assert_eq!(found, records());
    let tail = log.tail();
    assert_eq!(
        (tail.epoch, tail.incarnation, tail.source_position),
        (epoch(), Incarnation::new(0x1c), 77)
    );
    let chain = records().iter().fold(Chain::from_bytes([3; 16]), |chain, r| r.chain(chain));
    assert_eq!(tail.chain, chain);
    assert_eq!(log.controls(), [(Lsn::new(14), marker())]);
}

/// Some fields of each structure at the offsets that `docs/formats/journal.md` gives, so that
/// writer and reader can't change together unnoticed.
#[test]
fn fields_stand_where_the_document_says() {
    let read = |name: &str| std::fs::read(directory(PLAIN).join(name)).expect("read");
    let u64_at = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
    };
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
    };
    let superblock = read("superblock");
    assert_eq!(superblock[..512], superblock[4096..4608], "two equal copies");
    assert_eq!(&superblock[..10], b"LFLOGSUP\x01\0");
    assert_eq!(u32_at(&superblock, 12), 512);
    assert_eq!((&superblock[24..40], &superblock[40..56]), (&[1; 16][..], &[2; 16][..]));
    assert_eq!((u64_at(&superblock, 56), u64_at(&superblock, 64)), (8192, 2));
    assert_eq!((u64_at(&superblock, 96), u64_at(&superblock, 104)), (1, 10));
    assert_eq!((&superblock[112..128], u64_at(&superblock, 128)), (&[3; 16][..], 42));
    assert_eq!(u32_at(&superblock, 508), crc32c::crc32c(&superblock[..508]));
    let segment = read("segment-00000000");
    assert_eq!(&segment[..10], b"LFLOGSEG\x01\0");
    assert_eq!((u64_at(&segment, 32), u64_at(&segment, 48)), (1, 10));
    let salt = u64_at(&segment, 40);
    let frame = &segment[512..];
    assert_eq!(&frame[..10], b"LFLOGFRM\x01\0");
    assert_eq!((u32_at(frame, 12), u64_at(frame, 16), u64_at(frame, 24)), (4, salt, 1));
    let payload = u32_at(frame, 36) as usize;
    assert_eq!((u32_at(frame, 32), u64_at(frame, 40), u64_at(frame, 48)), (512, 11, 10));
    assert_eq!((u64_at(frame, 88), u64_at(frame, 96)), (0x1c, 77));
    assert_eq!(&frame[104..120], &[3; 16]);
    let table = &frame[160 + payload..160 + payload + 128];
    assert_eq!(u32_at(frame, 136), crc32c::crc32c(table));
    assert_eq!(u32_at(frame, 156), crc32c::crc32c(&frame[..156]));
    assert_eq!(&frame[160..1160], &[0xaa; 1000]);
    let trailer = &segment[segment.len() - 512..];
    assert_eq!(&trailer[..10], b"LFLOGEND\x01\0");
    let (at, length) = (u32_at(trailer, 32) as usize, u32_at(trailer, 36) as usize);
    let index = &segment[at..at + length];
    assert_eq!(&index[..10], b"LFLOGIDX\x01\0");
    assert_eq!((u64_at(index, 16), u64_at(index, 24), u32_at(index, 32) as usize), (salt, 1, at));
    assert_eq!(u32_at(index, 52), crc32c::crc32c(&index[128..]));
    assert_eq!(&index[128..160], &table[..32], "the first record's header");
}

/// The same of what is sealed, by the key itself: contexts and lengths as `docs/formats/sealed.md`
/// and `docs/formats/journal.md` give them.
#[test]
fn sealed_parts_stand_where_the_document_says() {
    let read = |name: &str| std::fs::read(directory(SEALED).join(name)).expect("read");
    let key = SimMedium::sealed(512).root().data_key().expect("sealed");
    let superblock = read("superblock");
    assert_eq!(superblock[136..152], key.check(&[1; 16]));
    let segment = read("segment-00000000");
    let frame = &segment[512..];
    assert_eq!(&frame[8..12], [1, 0, 1, 0], "version and flag");
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
    };
    let payload_bytes = u32_at(frame, 36) as usize;
    assert_eq!(payload_bytes, 1000 + 40 + records()[3].payload.len() + 40);
    // Use of the file: log, segment, salt.
    let place = [&[1; 16][..], &segment[32..40], &segment[40..48]].concat();
    let table_at = 160 + payload_bytes;
    let mut table = frame[table_at..table_at + 4 * 32 + 40].to_vec();
    assert_eq!(u32_at(frame, 136), crc32c::crc32c(&table));
    let context = [&b"table"[..], &place, &frame[..136]].concat();
    let table = key.open(&context, &mut table).expect("opens");
    assert_eq!(table[..32], records()[0].header.encode());
    let context = [&b"record"[..], &place, &table[..32]].concat();
    let mut payload = frame[160..160 + 1040].to_vec();
    assert_eq!(key.open(&context, &mut payload).expect("opens"), [0xaa; 1000]);
    let trailer = &segment[segment.len() - 512..];
    let (at, length) = (u32_at(trailer, 32) as usize, u32_at(trailer, 36) as usize);
    let index = &segment[at..at + length];
    assert_eq!(&index[8..12], [1, 0, 1, 0], "version and flag");
    let mut head = index[..72].to_vec();
    head[52..56].fill(0);
    let controls_at = length - (8 * u32_at(index, 44) + u32_at(index, 48)) as usize - 40;
    for (name, part) in [("records", 128..controls_at), ("controls", controls_at..length)] {
        let context = [&b"index"[..], &place, name.as_bytes(), &head].concat();
        let mut part = index[part].to_vec();
        key.open(&context, &mut part).expect(name);
    }
}

#[test]
fn record_vectors_of_the_document() {
    let document = include_str!("../../../docs/formats/records.md");
    let check = |bytes: &[u8]| {
        let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = text.join(" ");
        assert!(document.contains(&format!("| `{text}` |")), "records.md lacks {text}");
    };
    let write =
        Record::write(Lsn::new(7), DiskIndex(2), 4096, b"abc".as_slice().into()).as_catch_up();
    let header = write.header.encode();
    assert_eq!(RecordHeader::decode(&header).expect("ours"), write.header);
    check(&header);
    check(write.chain(Chain::ROOT).as_bytes());
    let open = WindowOpen {
        window: WindowId(5),
        reason: WindowReason::Reprotect,
        mode: WindowMode::Compare,
        disks: vec![0, 1],
        into_image: true,
    };
    let geometry = Geometry { disk: 1, id: [3; 16], size_bytes: 1 << 30, sector_bytes: 512 };
    for control in [
        marker(),
        Control::WindowOpen(open),
        Control::WindowClose(WindowClose { window: WindowId(5), exact: true }),
        Control::Geometry(geometry),
    ] {
        let bytes = control.encode();
        assert_eq!(Control::decode(&bytes).expect("ours"), control);
        check(&bytes);
    }
}
