//! The loader's view of the memory that it shares with the program: offsets in `bpf/shared.h`.

use crate::LostReason;

pub(crate) const TARGETS_MAX: usize = 32;
pub(crate) const SEGMENT_BYTES: u64 = 2 << 20;
pub(crate) const RECORD_DATA_MAX: u64 = 256 << 10;
/// A segment with the slack that lets its last record go on behind its end.
pub(crate) const SEGMENT_VALUE: u64 = SEGMENT_BYTES + RECORD_DATA_MAX + (32 << 10) + 8192;
pub(crate) const RECORD_BYTES: u64 = 48;
pub(crate) const CONTROL_BYTES: usize = 4096;

/// Offsets in `struct control`.
pub(crate) mod control {
    pub(crate) const HEAD: usize = 0;
    pub(crate) const TAIL: usize = 64;
    pub(crate) const LOST: usize = 128;
    pub(crate) const MODE: usize = 136;
    pub(crate) const KEY: usize = 144;
    pub(crate) const RING_BYTES: usize = 152;
    pub(crate) const SEGMENTS: usize = 160;
    pub(crate) const PAGE_OFFSET_BASE: usize = 168;
    pub(crate) const VMEMMAP_BASE: usize = 176;
    pub(crate) const TARGETS_COUNT: usize = 184;
    pub(crate) const WAITING: usize = 192;
    pub(crate) const GUARD_MISSED: usize = 200;
    pub(crate) const GUARD_BESIDE: usize = 208;
    pub(crate) const SEQUENCE: usize = 256;
    pub(crate) const TARGETS: usize = 512;
    pub(crate) const COUNTERS: usize = 1024;
}

/// Bytes of one `struct target`.
pub(crate) const TARGET_BYTES: usize = 16;
/// Bytes of one `struct counters`.
pub(crate) const COUNTERS_BYTES: usize = 64;

/// Offsets in `struct counters`.
pub(crate) mod counters {
    pub(crate) const SUBMITTED: usize = 0;
    pub(crate) const COMPLETED: usize = 8;
    pub(crate) const FAILED: usize = 16;
    pub(crate) const BESIDE: usize = 24;
    pub(crate) const MISSED: usize = 32;
    pub(crate) const BYTES: usize = 40;
    pub(crate) const REPLACED: usize = 48;
}

pub(crate) const MODE_DATA: u64 = 1;
pub(crate) const MODE_LOST: u64 = 2;

pub(crate) const KIND_WRITE: u8 = 1;
pub(crate) const KIND_ZERO: u8 = 2;
pub(crate) const KIND_DISCARD: u8 = 3;
pub(crate) const KIND_FAILED: u8 = 4;
pub(crate) const KIND_UNREADABLE: u8 = 5;

/// `control.lost` taken apart; `None` when it is 0.
pub(crate) fn unpack_lost(lost: u64) -> Option<(LostReason, u16, u64)> {
    if lost == 0 {
        return None;
    }
    let reason = match lost >> 58 {
        1 => LostReason::Overflow,
        2 => LostReason::Unreadable,
        3 => LostReason::Missed,
        4 => LostReason::Beside,
        5 => LostReason::UnknownOperation,
        6 => LostReason::TooManyInFlight,
        7 => LostReason::Contended,
        _ => LostReason::Malformed,
    };
    let target = u16::try_from(lost >> 52 & 63).expect("six bits");
    Some((reason, target, (lost & ((1 << 52) - 1)) << 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_taken_apart() {
        assert_eq!(unpack_lost(0), None);
        let lost = 1 << 58 | 5 << 52 | (0x1234_5678 >> 3);
        assert_eq!(unpack_lost(lost), Some((LostReason::Overflow, 5, 0x1234_5678)));
    }

    /// Guards the promise that loader and program mean the same bytes.
    #[test]
    fn offsets_are_those_of_the_header() {
        let header = include_str!("bpf/shared.h");
        let mut offset = 0;
        let mut found = Vec::new();
        let body = header.split("struct control {").nth(1).expect("it is there");
        for line in body.split("};").next().expect("it ends").lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            let Some((kind, name)) = line.rsplit_once(' ') else { continue };
            let unit = match kind.trim() {
                "__u64" => 8,
                "struct target" => TARGET_BYTES,
                "struct counters" => COUNTERS_BYTES,
                other => panic!("unknown field {other:?}"),
            };
            let (name, count) = match name.split_once('[') {
                Some((name, "TARGETS_MAX]")) => (name, TARGETS_MAX),
                Some((name, count)) => {
                    (name, count.trim_end_matches(']').parse().expect("a number"))
                }
                None => (name, 1),
            };
            found.push((name.to_owned(), offset));
            offset += unit * count;
        }
        assert_eq!(offset, CONTROL_BYTES);
        let expected = [
            ("head", control::HEAD),
            ("tail", control::TAIL),
            ("lost", control::LOST),
            ("mode", control::MODE),
            ("key", control::KEY),
            ("ring_bytes", control::RING_BYTES),
            ("segments", control::SEGMENTS),
            ("page_offset_base", control::PAGE_OFFSET_BASE),
            ("vmemmap_base", control::VMEMMAP_BASE),
            ("targets_count", control::TARGETS_COUNT),
            ("waiting", control::WAITING),
            ("guard_missed", control::GUARD_MISSED),
            ("guard_beside", control::GUARD_BESIDE),
            ("sequence", control::SEQUENCE),
            ("targets", control::TARGETS),
            ("counters", control::COUNTERS),
        ];
        for (name, offset) in expected {
            assert!(found.contains(&(name.to_owned(), offset)), "{name} at {offset}: {found:?}");
        }
    }
}
