//! The loader's view of the memory that it shares with the program: offsets in `bpf/shared.h`.

use crate::LostReason;

/// What a loader must find in pinned memory to take it over.
pub(crate) const LAYOUT: u64 = 0x4c41_4e44_4641_4c01;

pub(crate) const TARGETS_MAX: usize = 32;
pub(crate) const EXCLUSIONS_MAX: usize = 64;
pub(crate) const EXCLUSIONS_PER_TARGET_MAX: usize = 8;
pub(crate) const SEGMENT_BYTES: u64 = 2 << 20;
pub(crate) const RECORD_DATA_MAX: u64 = 256 << 10;
/// A segment with the slack that lets its last record go on behind its end.
pub(crate) const SEGMENT_VALUE: u64 = SEGMENT_BYTES + RECORD_DATA_MAX + (32 << 10) + 8192;
pub(crate) const RECORD_BYTES: u64 = 48;
pub(crate) const CONTROL_BYTES: usize = 8192;
/// Places for writes in flight.
pub(crate) const FLIGHTS: usize = 16384;
/// Words of one of the two planes of sectors in flight; the second is that of suspects.
pub(crate) const SKY_WORDS: usize = 262_144;
/// A key that is being filled in.
pub(crate) const KEY_BUSY: u64 = 1;

/// Offsets in `struct control`.
pub(crate) mod control {
    pub(crate) const HEAD: usize = 0;
    pub(crate) const TAIL: usize = 64;
    pub(crate) const WAKE_AT: usize = 128;
    pub(crate) const LAYOUT: usize = 192;
    pub(crate) const MODE: usize = 200;
    pub(crate) const KEY: usize = 208;
    pub(crate) const RING_BYTES: usize = 216;
    pub(crate) const SEGMENTS: usize = 224;
    pub(crate) const PAGE_OFFSET_BASE: usize = 232;
    pub(crate) const VMEMMAP_BASE: usize = 240;
    pub(crate) const TARGETS_COUNT: usize = 248;
    pub(crate) const GUARD_MISSED: usize = 256;
    pub(crate) const GUARD_BESIDE: usize = 264;
    pub(crate) const GENERATION: usize = 272;
    pub(crate) const EPOCH: usize = 280;
    pub(crate) const PLANE_WORDS: usize = 288;
    pub(crate) const UNTRACKED: usize = 296;
    pub(crate) const SUSPICIOUS: usize = 304;
    pub(crate) const OBJECT: usize = 320;
    pub(crate) const BOOT: usize = 328;
    pub(crate) const OWNER: usize = 344;
    pub(crate) const DURABLE: usize = 360;
    pub(crate) const ROTATED: usize = 368;
    pub(crate) const SERIAL: usize = 376;
    pub(crate) const TARGETS: usize = 1024;
    pub(crate) const EXCLUSIONS: usize = 5120;
}

/// Bytes of one `struct target`.
pub(crate) const TARGET_BYTES: usize = 128;
/// Bytes of one `struct exclusion`.
pub(crate) const EXCLUSION_BYTES: usize = 16;
/// Bytes of one `struct counters`.
pub(crate) const COUNTERS_BYTES: usize = 128;
/// Bytes of one `struct flight`.
pub(crate) const FLIGHT_BYTES: usize = 64;

/// Offsets in `struct target`.
pub(crate) mod target {
    /// With the minor number behind it.
    pub(crate) const MAJOR: usize = 0;
    pub(crate) const DISKSEQ: usize = 8;
    pub(crate) const MODE: usize = 16;
    pub(crate) const LOST: usize = 24;
    pub(crate) const FIRST_WORD: usize = 32;
    pub(crate) const BLOCKS: usize = 40;
    pub(crate) const BLOCK_SHIFT: usize = 48;
    pub(crate) const ALL_DIRTY: usize = 56;
    pub(crate) const SUSPECTS: usize = 64;
    pub(crate) const EXCLUDED_FIRST: usize = 72;
    pub(crate) const EXCLUDED_COUNT: usize = 80;
    pub(crate) const PENDING_ALL: usize = 88;
    pub(crate) const BASELINE: usize = 96;
    pub(crate) const TAKEN: usize = 104;
    pub(crate) const UNCOLLECTED: usize = 112;
    /// Size of the disk in 512-byte sectors, and its index in the highest 16 bits.
    pub(crate) const SIZE_AND_INDEX: usize = 120;
}

/// Offsets in `struct counters`.
pub(crate) mod counters {
    pub(crate) const SUBMITTED: usize = 0;
    pub(crate) const COMPLETED: usize = 8;
    pub(crate) const FAILED: usize = 16;
    pub(crate) const BESIDE: usize = 24;
    pub(crate) const MISSED: usize = 32;
    pub(crate) const BYTES: usize = 40;
    pub(crate) const REPLACED: usize = 48;
    pub(crate) const OVERLAPS: usize = 56;
    pub(crate) const EXCLUDED: usize = 64;
    pub(crate) const PASS_THROUGH: usize = 72;
    pub(crate) const ISSUED_BESIDE: usize = 80;
    pub(crate) const MARKED: usize = 88;
    pub(crate) const UNENDED: usize = 96;
}

/// Offsets in `struct flight`.
pub(crate) mod flight {
    pub(crate) const KEY: usize = 0;
    pub(crate) const EPOCH: usize = 8;
    pub(crate) const SECTOR: usize = 16;
    /// With the target behind it.
    pub(crate) const BYTES: usize = 24;
}

pub(crate) const MODE_DATA: u64 = 1;
pub(crate) const MODE_BITMAP: u64 = 2;

pub(crate) const KIND_WRITE: u8 = 1;
pub(crate) const KIND_ZERO: u8 = 2;
pub(crate) const KIND_DISCARD: u8 = 3;
pub(crate) const KIND_FAILED: u8 = 4;
pub(crate) const KIND_SKIP: u8 = 5;
pub(crate) const KIND_OVERLAP: u8 = 6;

/// Reasons and their numbers; those above 31 are the loader's own.
// tidy: table
const REASONS: &[(LostReason, u64)] = &[
    (LostReason::Overflow, 1),
    (LostReason::Unreadable, 2),
    (LostReason::Missed, 3),
    (LostReason::Beside, 4),
    (LostReason::UnknownOperation, 5),
    (LostReason::TooManyInFlight, 6),
    (LostReason::Contended, 7),
    (LostReason::PassThrough, 8),
    (LostReason::Grown, 9),
    (LostReason::Unmarked, 10),
    (LostReason::InlineEncryption, 11),
    (LostReason::Stuck, 32),
    (LostReason::Malformed, 33),
    (LostReason::NoData, 34),
    (LostReason::Asked, 35),
    (LostReason::LostCompletion, 36),
    (LostReason::RateLimit, 37),
    (LostReason::CpuLimit, 38),
];

/// The number of a reason.
pub(crate) fn number_of(reason: LostReason) -> u64 {
    let found = REASONS.iter().find(|(known, _)| *known == reason);
    found.expect("the table has every reason").1
}

/// The reason of a number; a number that we don't know is not what our program writes.
pub(crate) fn reason_of(number: u64) -> LostReason {
    let found = REASONS.iter().find(|(_, known)| *known == number);
    found.map_or(LostReason::Malformed, |(reason, _)| *reason)
}

/// `target.lost` put together; positions are multiples of 8.
pub(crate) fn pack_lost(reason: LostReason, at: u64) -> u64 {
    number_of(reason) << 58 | (at >> 3)
}

/// `target.lost` taken apart; `None` when it is 0.
pub(crate) fn unpack_lost(lost: u64) -> Option<(LostReason, u64)> {
    (lost != 0).then(|| (reason_of(lost >> 58), (lost & ((1 << 58) - 1)) << 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_taken_apart() {
        assert_eq!(unpack_lost(0), None);
        for (reason, number) in REASONS {
            assert_eq!(unpack_lost(pack_lost(*reason, 4096)), Some((*reason, 4096)));
            assert!(*number < 64, "six bits");
        }
        assert_eq!(unpack_lost(63 << 58), Some((LostReason::Malformed, 0)));
    }

    /// Name and offset of each field, and the size, as the header has them.
    fn fields(name: &str) -> (Vec<(String, usize)>, usize) {
        let header = include_str!("bpf/shared.h");
        let mut offset = 0;
        let mut found = Vec::new();
        let start = format!("struct {name} {{");
        let body = header.split(&start).nth(1).expect("it is there");
        for line in body.split("};").next().expect("it ends").lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            let Some((kind, name)) = line.rsplit_once(' ') else { continue };
            let unit = match kind.trim() {
                "__u64" => 8,
                "__u32" => 4,
                "struct target" => TARGET_BYTES,
                "struct exclusion" => EXCLUSION_BYTES,
                _ => continue,
            };
            let (name, count) = match name.split_once('[') {
                Some((name, "TARGETS_MAX]")) => (name, TARGETS_MAX),
                Some((name, "EXCLUSIONS_MAX]")) => (name, EXCLUSIONS_MAX),
                Some((name, count)) => {
                    (name, count.trim_end_matches(']').parse().expect("a number"))
                }
                None => (name, 1),
            };
            found.push((name.to_owned(), offset));
            offset += unit * count;
        }
        (found, offset)
    }

    fn check(name: &str, bytes: usize, expected: &[(&str, usize)]) {
        let (found, size) = fields(name);
        assert_eq!(size, bytes, "{name}");
        for (field, offset) in expected {
            let pair = ((*field).to_owned(), *offset);
            assert!(found.contains(&pair), "{name}.{field} at {offset}: {found:?}");
        }
    }

    /// Guards the promise that loader and program mean the same bytes.
    // tidy: table
    #[test]
    fn offsets_are_those_of_the_header() {
        check(
            "control",
            CONTROL_BYTES,
            &[
                ("head", control::HEAD),
                ("tail", control::TAIL),
                ("wake_at", control::WAKE_AT),
                ("layout", control::LAYOUT),
                ("mode", control::MODE),
                ("key", control::KEY),
                ("ring_bytes", control::RING_BYTES),
                ("segments", control::SEGMENTS),
                ("page_offset_base", control::PAGE_OFFSET_BASE),
                ("vmemmap_base", control::VMEMMAP_BASE),
                ("targets_count", control::TARGETS_COUNT),
                ("guard_missed", control::GUARD_MISSED),
                ("guard_beside", control::GUARD_BESIDE),
                ("generation", control::GENERATION),
                ("epoch", control::EPOCH),
                ("plane_words", control::PLANE_WORDS),
                ("untracked", control::UNTRACKED),
                ("suspicious", control::SUSPICIOUS),
                ("object", control::OBJECT),
                ("boot", control::BOOT),
                ("owner", control::OWNER),
                ("durable", control::DURABLE),
                ("rotated", control::ROTATED),
                ("serial", control::SERIAL),
                ("targets", control::TARGETS),
                ("exclusions", control::EXCLUSIONS),
            ],
        );
        check(
            "target",
            TARGET_BYTES,
            &[
                ("major", target::MAJOR),
                ("diskseq", target::DISKSEQ),
                ("mode", target::MODE),
                ("lost", target::LOST),
                ("first_word", target::FIRST_WORD),
                ("blocks", target::BLOCKS),
                ("block_shift", target::BLOCK_SHIFT),
                ("all_dirty", target::ALL_DIRTY),
                ("suspects", target::SUSPECTS),
                ("excluded_first", target::EXCLUDED_FIRST),
                ("excluded_count", target::EXCLUDED_COUNT),
                ("pending_all", target::PENDING_ALL),
                ("baseline", target::BASELINE),
                ("taken", target::TAKEN),
                ("uncollected", target::UNCOLLECTED),
                ("size_and_index", target::SIZE_AND_INDEX),
            ],
        );
        check(
            "counters",
            COUNTERS_BYTES,
            &[
                ("submitted", counters::SUBMITTED),
                ("completed", counters::COMPLETED),
                ("failed", counters::FAILED),
                ("beside", counters::BESIDE),
                ("missed", counters::MISSED),
                ("bytes", counters::BYTES),
                ("replaced", counters::REPLACED),
                ("overlaps", counters::OVERLAPS),
                ("excluded", counters::EXCLUDED),
                ("pass_through", counters::PASS_THROUGH),
                ("issued_beside", counters::ISSUED_BESIDE),
                ("marked", counters::MARKED),
                ("unended", counters::UNENDED),
            ],
        );
        check(
            "flight",
            FLIGHT_BYTES,
            &[
                ("key", flight::KEY),
                ("epoch", flight::EPOCH),
                ("sector", flight::SECTOR),
                ("bytes", flight::BYTES),
            ],
        );
    }
}
