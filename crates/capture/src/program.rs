//! Loads and attaches the eBPF programs.

use crate::disk::Disk;
use crate::kernel::Bases;
use crate::layout::{self, control, target};
use crate::maps::{Maps, membarrier};
use crate::{CaptureError, Options};
use landfall_types::{ByteRange, DiskIndex};
use libbpf_rs::{Link, MapCore, MapHandle, Object, ObjectBuilder};
use std::sync::Once;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/capture.bpf.o"));

/// In the order in which they are attached: on_missed must run after on_queue on the same hook, so
/// it comes after it; the others come before anything is captured, so that every write that
/// on_queue sees is also seen ending.
pub(crate) const HOOKS: [&str; 5] =
    ["on_request_complete", "on_bio_complete", "on_issue", "on_queue", "on_missed"];

/// Blocks of the bitmap are at least this large.
const BLOCK_SHIFT_MIN: u64 = 12;

/// Loaded programs that are not attached yet.
pub(crate) struct Program {
    object: Object,
    pub(crate) maps: Maps,
}

/// Which program this binary contains: a pinned one of another hash is replaced.
pub(crate) fn object_hash() -> u64 {
    // FNV-1a: it has to tell our own builds apart, nothing more.
    OBJECT.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Where a disk's bits are.
struct Place {
    first_word: u64,
    blocks: u64,
    shift: u64,
}

/// Places for the bits of all disks, with blocks as small as `options.bitmap_bytes_max` allows; and
/// the words of one plane.
fn places(sizes: &[u64], options: &Options) -> (Vec<Place>, u64) {
    let mut shift = BLOCK_SHIFT_MIN;
    loop {
        let mut words = 0;
        let mut places = Vec::new();
        for size in sizes {
            let blocks = size.div_ceil(1 << shift);
            places.push(Place { first_word: words, blocks, shift });
            words += blocks.div_ceil(64);
        }
        if words * 8 * 3 <= options.bitmap_bytes_max || shift == 30 {
            return (places, words.max(1));
        }
        shift += 1;
    }
}

impl Program {
    /// Loads the programs for `disks`; they do nothing before [`Program::attach`].
    pub(crate) fn load(
        disks: &[(DiskIndex, Disk)],
        key: u64,
        options: &Options,
    ) -> Result<Self, CaptureError> {
        route_messages();
        let step = |step| move |source| CaptureError::Program { step, source };
        let mut builder = ObjectBuilder::default();
        let mut open = builder.open_memory(OBJECT).map_err(step("open"))?;
        let segments = options.ring_bytes.div_ceil(layout::SEGMENT_BYTES).max(1);
        let sizes: Vec<u64> = disks.iter().map(|(_, disk)| disk.geometry.size_bytes).collect();
        let (places, plane_words) = places(&sizes, options);
        let processors = libbpf_rs::num_possible_cpus().map_err(step("count processors for"))?;
        for mut map in open.maps_mut() {
            let entries = match map.name().to_str() {
                Some("ring") => segments,
                Some("bits") => plane_words * 3,
                Some("counts") => (processors * layout::TARGETS_MAX) as u64,
                _ => continue,
            };
            let entries = u32::try_from(entries).map_err(|_| CaptureError::TooLarge)?;
            map.set_max_entries(entries).map_err(step("size the maps"))?;
        }
        let object = open.load().map_err(step("load"))?;
        let maps = Maps::new(|name| map_of(&object, name))?;
        let program = Self { object, maps };
        program.configure(key, segments, plane_words, options)?;
        program.configure_targets(disks, &places, options)?;
        Ok(program)
    }

    fn configure(
        &self,
        key: u64,
        segments: u64,
        plane_words: u64,
        options: &Options,
    ) -> Result<(), CaptureError> {
        let maps = &self.maps;
        maps.set(control::KEY, key);
        maps.set(control::SEGMENTS, segments);
        maps.set(control::RING_BYTES, segments * layout::SEGMENT_BYTES);
        maps.set(control::PLANE_WORDS, plane_words);
        maps.set(control::OBJECT, object_hash());
        self.run_read_bases()?;
        let fallback = Bases::fallback();
        let known = |offset, otherwise| match maps.get(offset) {
            0 => otherwise,
            base => base,
        };
        let page_offset = known(control::PAGE_OFFSET_BASE, fallback.page_offset);
        let vmemmap = known(control::VMEMMAP_BASE, fallback.vmemmap);
        maps.set(control::PAGE_OFFSET_BASE, page_offset.wrapping_add(options.page_offset_error));
        maps.set(control::VMEMMAP_BASE, vmemmap);
        Ok(())
    }

    fn configure_targets(
        &self,
        disks: &[(DiskIndex, Disk)],
        places: &[Place],
        options: &Options,
    ) -> Result<(), CaptureError> {
        let maps = &self.maps;
        let mut exclusions = 0;
        for (slot, ((index, disk), place)) in disks.iter().zip(places).enumerate() {
            let ranges: Vec<ByteRange> = excluded(options, *index).collect();
            if ranges.len() > layout::EXCLUSIONS_PER_TARGET_MAX
                || exclusions + ranges.len() > layout::EXCLUSIONS_MAX
            {
                return Err(CaptureError::Targets("too many excluded ranges".to_owned()));
            }
            let set = |offset, value| maps.target_set(slot, offset, value);
            set(target::MAJOR, u64::from(disk.major) | u64::from(disk.minor) << 32);
            set(target::DISKSEQ, disk.diskseq);
            set(target::FIRST_WORD, place.first_word);
            set(target::BLOCKS, place.blocks);
            set(target::BLOCK_SHIFT, place.shift);
            set(target::SIZE_AND_INDEX, size_and_index(*index, disk));
            set(target::EXCLUDED_FIRST, exclusions as u64);
            set(target::EXCLUDED_COUNT, ranges.len() as u64);
            for range in ranges {
                let at = control::EXCLUSIONS + exclusions * layout::EXCLUSION_BYTES;
                maps.set(at, range.start.div_ceil(512));
                maps.set(at + 8, range.end / 512);
                exclusions += 1;
            }
        }
        maps.set(control::TARGETS_COUNT, disks.len() as u64);
        Ok(())
    }

    fn run_read_bases(&self) -> Result<(), CaptureError> {
        self.program("read_bases").test_run(libbpf_rs::ProgramInput::default()).map(|_| ()).map_err(
            |source| CaptureError::Program { step: "ask the kernel for its bases with", source },
        )
    }

    fn program(&self, name: &str) -> libbpf_rs::ProgramMut<'_> {
        let found = self.object.progs_mut().find(|program| program.name() == name);
        found.expect("the object has this program")
    }

    /// A map, for pinning.
    pub(crate) fn map(&self, name: &'static str) -> Result<MapHandle, CaptureError> {
        map_of(&self.object, name)
    }

    /// Attaches the programs, and switches this mode on for all disks: from here on nothing is
    /// missed.
    pub(crate) fn attach(self, mode: u64) -> Result<(Maps, Vec<Link>), CaptureError> {
        let mut links = Vec::new();
        for name in HOOKS {
            let link = self
                .program(name)
                .attach_trace()
                .map_err(|source| CaptureError::Program { step: "attach", source })?;
            links.push(link);
        }
        let slots = usize::try_from(self.maps.get(control::TARGETS_COUNT)).expect("at most 32");
        for slot in 0..slots {
            self.maps.target_set(slot, target::MODE, mode);
        }
        self.maps.set(control::MODE, layout::MODE_DATA);
        // A hook that runs right now may have seen the old mode in on_queue and would see the new
        // one in on_missed: a false alarm. After this call every such run has ended.
        membarrier();
        self.maps.set(control::GUARD_MISSED, 1);
        Ok((self.maps, links))
    }
}

/// What is left out of a disk.
pub(crate) fn excluded(options: &Options, disk: DiskIndex) -> impl Iterator<Item = ByteRange> {
    options.excluded.iter().filter(move |(index, _)| *index == disk).map(|(_, range)| *range)
}

/// What a target is recognized by, beside its number and sequence.
pub(crate) fn size_and_index(index: DiskIndex, disk: &Disk) -> u64 {
    (disk.geometry.size_bytes / 512) | (u64::from(index.0) << 48)
}

fn map_of(object: &Object, name: &'static str) -> Result<MapHandle, CaptureError> {
    let map = object.maps().find(|map| map.name() == name).expect("the object has this map");
    MapHandle::try_from(&map)
        .map_err(|source| CaptureError::Program { step: "share a map", source })
}

/// libbpf writes to standard error unless told otherwise.
pub(crate) fn route_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |level, message| {
            let message = message.trim_end();
            match level {
                libbpf_rs::PrintLevel::Warn => tracing::warn!(target: "libbpf", "{message}"),
                libbpf_rs::PrintLevel::Info | libbpf_rs::PrintLevel::Debug => {
                    tracing::trace!(target: "libbpf", "{message}");
                }
            }
        })));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_until_the_bits_fit() {
        let options = |bitmap_bytes_max| Options { bitmap_bytes_max, ..Options::default() };
        let (found, words) = places(&[1 << 30, 4096 * 65], &options(1 << 20));
        assert_eq!((found[0].shift, found[0].first_word, found[0].blocks), (12, 0, 1 << 18));
        assert_eq!((found[1].first_word, found[1].blocks), (4096, 65));
        assert_eq!(words, 4096 + 2);
        let (found, words) = places(&[1 << 40], &options(1 << 20));
        assert!(words * 24 <= 1 << 20 && found[0].shift > 12);
        assert_eq!(found[0].blocks, (1 << 40) >> found[0].shift);
    }
}
