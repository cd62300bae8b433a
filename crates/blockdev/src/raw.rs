//! A file or block device of the operating system, with whole transfers, optional direct I/O and
//! poisoning.

use crate::{Action, DeviceError};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File as OsFile, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What direct I/O is tried with first: the smallest sector there is.
const DIRECT_ALIGN_MIN: u64 = 512;
/// What direct I/O is tried with when 512 is refused: a page, which every file system that can do
/// it accepts.
const DIRECT_ALIGN_MAX: u64 = 4096;
/// Value of `direct_align` when even pages are refused.
const DIRECT_OFF: u64 = u64::MAX;
/// Parts of one request: far below the system's limit of 1024.
const PARTS_MAX: usize = 16;
/// How much is zeroed at once where the medium has no call for it.
const ZERO_CHUNK: usize = 1 << 20;

/// Whether transfers whose offset, length and memory are aligned bypass the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// All transfers go through the page cache.
    Always,
    /// Aligned ones bypass it: no copy, and what is read is what the medium holds, which recovery
    /// after a failed sync depends on (the cache may hold pages that were never written).
    BypassAligned,
    /// Aligned writes bypass it, reads don't: for images, which are written once by a fold and read
    /// over and over. Only whole pages: a page of which one part bypasses the cache and another
    /// does not could keep a stale copy.
    BypassWrites,
}

/// An open file with the guarantees of this crate.
#[derive(Debug)]
pub(crate) struct RawFile {
    file: OsFile,
    /// The same file opened with `O_DIRECT`.
    direct: Option<OsFile>,
    /// Alignment that direct transfers need, learnt from refusals; [`DIRECT_OFF`] when they never
    /// work.
    direct_align: AtomicU64,
    direct_reads: bool,
    writable: bool,
    poisoned: AtomicBool,
    target: String,
}

impl RawFile {
    /// Opens `path`; `flags` are added to what `options` says.
    pub(crate) fn open(
        path: &Path,
        options: &OpenOptions,
        flags: OFlags,
        writable: bool,
        cache: Cache,
    ) -> io::Result<Self> {
        let file = options.clone().custom_flags(custom(flags)).open(path)?;
        // The second handle must not create, cut or claim anything again.
        let direct = (cache != Cache::Always)
            .then(|| {
                OpenOptions::new()
                    .read(true)
                    .write(writable)
                    .custom_flags(custom(OFlags::DIRECT))
                    .open(path)
            })
            .and_then(Result::ok);
        Ok(Self {
            file,
            direct,
            direct_align: AtomicU64::new(match cache {
                Cache::BypassWrites => DIRECT_ALIGN_MAX,
                Cache::Always | Cache::BypassAligned => DIRECT_ALIGN_MIN,
            }),
            direct_reads: cache == Cache::BypassAligned,
            writable,
            poisoned: AtomicBool::new(false),
            target: path.display().to_string(),
        })
    }

    pub(crate) const fn os(&self) -> &OsFile {
        &self.file
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn fail(&self, action: Action) -> impl Fn(io::Error) -> DeviceError {
        move |source| DeviceError::from_io(action, &self.target, source)
    }

    /// A whole read; the caller has checked the range.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            let direct = self.direct_for(at, rest.as_ptr(), rest.len());
            let direct = direct.filter(|_| self.direct_reads);
            match direct.unwrap_or(&self.file).read_at(rest, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if direct.is_some() && is_invalid(&error) => self.refuse_direct(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A whole write; the caller has checked the range.
    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.check_writable()?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let rest = &data[done..];
            let direct = self.direct_for(at, rest.as_ptr(), rest.len());
            match direct.unwrap_or(&self.file).write_at(rest, at) {
                Ok(0) => return Err(self.fail(Action::Write)(io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if direct.is_some() && is_invalid(&error) => self.refuse_direct(),
                Err(error) => return Err(self.fail(Action::Write)(error)),
            }
        }
        Ok(())
    }

    /// As [`RawFile::write_at`], in up to three requests: where memory and file are aligned alike,
    /// all but a ragged beginning and end bypass the page cache.
    pub(crate) fn write_pages_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let page = DIRECT_ALIGN_MAX;
        let head = offset.next_multiple_of(page) - offset;
        let alike = (data.as_ptr().addr() as u64).wrapping_sub(offset).is_multiple_of(page);
        let length = data.len() as u64;
        if self.direct.is_none() || !alike || head + page > length {
            return self.write_at(offset, data);
        }
        let whole = (length - head) / page * page;
        let (head, rest) = data.split_at(usize::try_from(head).expect("less than a page"));
        let (pages, tail) = rest.split_at(usize::try_from(whole).expect("a part of the data"));
        self.write_at(offset, head)?;
        let pages_at = offset + head.len() as u64;
        self.write_at(pages_at, pages)?;
        self.write_at(pages_at + whole, tail)
    }

    /// A whole write of several parts in as few requests as the system takes.
    pub(crate) fn write_parts(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DeviceError> {
        self.check_writable()?;
        let mut at = offset;
        for some in parts.chunks(PARTS_MAX) {
            let total: usize = some.iter().map(|part| part.len()).sum();
            let written = self.try_parts(at, some);
            // What one request did not take is written part by part: writing the same bytes again
            // does no harm.
            if written != total {
                let mut part_at = at;
                for part in some {
                    self.write_at(part_at, part)?;
                    part_at += part.len() as u64;
                }
            }
            at += total as u64;
        }
        Ok(())
    }

    /// How many bytes one request has written; 0 where it can't be made.
    fn try_parts(&self, offset: u64, parts: &[&[u8]]) -> usize {
        if parts.len() < 2 {
            return 0;
        }
        let mut at = offset;
        for part in parts {
            if self.direct_for(at, part.as_ptr(), part.len()).is_none() {
                return 0;
            }
            at += part.len() as u64;
        }
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let Some(direct) = &self.direct else { return 0 };
        rustix::io::pwritev(direct, &slices, offset).unwrap_or(0)
    }

    /// Zeroes a range and gives its space back, by the medium's own call where there is one.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check_writable()?;
        // Block devices take whole sectors only; files would bounce the ends anyway.
        let start = offset.next_multiple_of(DIRECT_ALIGN_MAX);
        let end = (offset + length) / DIRECT_ALIGN_MAX * DIRECT_ALIGN_MAX;
        if start >= end {
            return self.write_zeroes(offset, length);
        }
        self.write_zeroes(offset, start - offset)?;
        if !self.try_fallocate(start, end - start)? {
            self.write_zeroes(start, end - start)?;
        }
        self.write_zeroes(end, offset + length - end)
    }

    /// True when the medium did it.
    fn try_fallocate(&self, offset: u64, length: u64) -> Result<bool, DeviceError> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        for mode in [punch, zero] {
            match fallocate(&self.file, mode, offset, length) {
                Ok(()) => return Ok(true),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
                Err(error) => return Err(self.fail(Action::Discard)(error.into())),
            }
        }
        Ok(false)
    }

    /// Tells the medium that the range is not needed; `Ok` also where it knows no such call.
    pub(crate) fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check_writable()?;
        let start = offset.next_multiple_of(DIRECT_ALIGN_MAX);
        let end = (offset + length) / DIRECT_ALIGN_MAX * DIRECT_ALIGN_MAX;
        if start >= end {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, punch, start, end - start) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(()),
            Err(error) => Err(self.fail(Action::Discard)(error.into())),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let zeroes = vec![0; usize::try_from(length).map_or(ZERO_CHUNK, |len| len.min(ZERO_CHUNK))];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(zeroes.len() as u64);
            let chunk = usize::try_from(count).expect("a chunk fits into memory");
            self.write_at(offset + done, &zeroes[..chunk])?;
            done += count;
        }
        Ok(())
    }

    /// Syncs data and length; the first failure poisons the handle for good: the kernel has marked
    /// the pages clean, so that a second sync would succeed without having written them (fault F3).
    pub(crate) fn sync(&self) -> Result<(), DeviceError> {
        self.check_poison()?;
        self.file.sync_data().map_err(|error| {
            self.poisoned.store(true, Ordering::SeqCst);
            self.fail(Action::Sync)(error)
        })
    }

    pub(crate) fn check_writable(&self) -> Result<(), DeviceError> {
        if !self.writable {
            return Err(DeviceError::ReadOnly { target: self.target.clone() });
        }
        self.check_poison()
    }

    fn check_poison(&self) -> Result<(), DeviceError> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(DeviceError::Poisoned { target: self.target.clone() });
        }
        Ok(())
    }

    /// The direct handle, when this transfer qualifies for it.
    fn direct_for(&self, offset: u64, memory: *const u8, length: usize) -> Option<&OsFile> {
        let direct = self.direct.as_ref()?;
        let align = self.direct_align.load(Ordering::Relaxed);
        let fits = |value: u64| align != DIRECT_OFF && value.is_multiple_of(align);
        (fits(offset) && fits(length as u64) && fits(memory.addr() as u64)).then_some(direct)
    }

    /// A direct transfer was refused as misaligned: ask for more alignment from now on.
    fn refuse_direct(&self) {
        let next = match self.direct_align.load(Ordering::Relaxed) {
            DIRECT_ALIGN_MIN => DIRECT_ALIGN_MAX,
            _ => DIRECT_OFF,
        };
        self.direct_align.store(next, Ordering::Relaxed);
    }
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

fn custom(flags: OFlags) -> i32 {
    (flags | OFlags::CLOEXEC).bits().cast_signed()
}
