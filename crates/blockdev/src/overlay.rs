//! A directory that is only read: whoever opens a log or a replica on it may repair and write as
//! always, and nothing of that reaches the medium.

use crate::dir::check_name;
use crate::fs_dir::physical_sector_bytes;
use crate::{Action, DeviceError, Dir, File};
use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE_BYTES: u64 = 4096;

/// A [`Dir`] over a directory of this machine's file system, also one that is mounted read-only.
/// What is written, made, renamed or removed is kept in memory, and gone with the last handle:
/// "durable" means nothing here. Memory is what the changes take; opening a log changes a few
/// sectors.
#[derive(Debug)]
pub struct OverlayDir {
    under: Option<PathBuf>,
    name: String,
    sector_bytes: u32,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Files that were touched; `None`: removed.
    files: BTreeMap<String, Option<Arc<OverlayFile>>>,
    /// The same for directories within.
    dirs: BTreeMap<String, Option<Arc<OverlayDir>>>,
}

impl OverlayDir {
    /// Over an existing directory.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let fail = |error| DeviceError::from_io(Action::Open, &name, error);
        let meta = std::fs::metadata(path).map_err(fail)?;
        if !meta.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        let sector_bytes = physical_sector_bytes(meta.dev());
        let under = Some(path.to_path_buf());
        Ok(Self { under, name, sector_bytes, entries: Mutex::default() })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// The file as it stands: touched already, or beneath.
    fn find(
        &self,
        entries: &mut Entries,
        name: &str,
    ) -> Result<Option<Arc<OverlayFile>>, DeviceError> {
        check_name(name)?;
        if let Some(known) = entries.files.get(name) {
            return Ok(known.clone());
        }
        let Some(path) = self.under.as_ref().map(|under| under.join(name)) else { return Ok(None) };
        let fail = |error| DeviceError::from_io(Action::Open, &path.display().to_string(), error);
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
            Ok(meta) if !meta.is_file() => return Ok(None),
            Ok(_) => {}
        }
        let under = OsFile::open(&path).map_err(fail)?;
        let length = under.metadata().map_err(fail)?.len();
        let file = Arc::new(OverlayFile::new(self.target(name), Some(under), length));
        entries.files.insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(Some(file))
    }

    fn missing(&self, name: &str) -> DeviceError {
        DeviceError::NotFound { target: self.target(name) }
    }

    /// Names beneath of the wanted kind.
    fn beneath(&self, dirs: bool) -> Result<Vec<String>, DeviceError> {
        let Some(under) = &self.under else { return Ok(vec![]) };
        let fail = |error| DeviceError::from_io(Action::List, &self.name, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(under).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let kind = entry.file_type().map_err(fail)?;
            if (dirs && kind.is_dir()) || (!dirs && kind.is_file()) {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }
}

/// What is beneath, changed by what was touched, sorted.
fn merged<T>(beneath: Vec<String>, touched: &BTreeMap<String, Option<T>>) -> Vec<String> {
    let untouched = beneath.into_iter().filter(|name| !touched.contains_key(name));
    let kept = touched.iter().filter(|(_, entry)| entry.is_some()).map(|(name, _)| name.clone());
    let mut names: Vec<String> = untouched.chain(kept).collect();
    names.sort();
    names
}

impl Dir for OverlayDir {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        let mut entries = self.entries();
        if self.find(&mut entries, name)?.is_some() {
            return Err(DeviceError::Exists { target: self.target(name) });
        }
        let file = Arc::new(OverlayFile::new(self.target(name), None, 0));
        entries.files.insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        let found = self.find(&mut self.entries(), name)?;
        Ok(found.ok_or_else(|| self.missing(name))?)
    }

    fn list(&self) -> Result<Vec<String>, DeviceError> {
        Ok(merged(self.beneath(false)?, &self.entries().files))
    }

    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        let mut entries = self.entries();
        self.find(&mut entries, name)?.ok_or_else(|| self.missing(name))?;
        entries.files.insert(name.to_owned(), None);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        check_name(to)?;
        let mut entries = self.entries();
        let file = self.find(&mut entries, from)?.ok_or_else(|| self.missing(from))?;
        entries.files.insert(from.to_owned(), None);
        entries.files.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn sync(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        check_name(name)?;
        let mut entries = self.entries();
        if let Some(Some(known)) = entries.dirs.get(name) {
            return Ok(Arc::clone(known) as Arc<dyn Dir>);
        }
        let removed = entries.dirs.contains_key(name);
        let path = self.under.as_ref().map(|under| under.join(name));
        let dir = match path.filter(|path| !removed && path.is_dir()) {
            Some(path) => Self::open(path)?,
            None => Self {
                under: None,
                name: self.target(name),
                sector_bytes: self.sector_bytes,
                entries: Mutex::default(),
            },
        };
        let dir = Arc::new(dir);
        entries.dirs.insert(name.to_owned(), Some(Arc::clone(&dir)));
        Ok(dir)
    }

    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        Ok(merged(self.beneath(true)?, &self.entries().dirs))
    }

    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        if !self.list_subdirs()?.iter().any(|found| found == name) {
            return Err(self.missing(name));
        }
        self.entries().dirs.insert(name.to_owned(), None);
        Ok(())
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        Ok(None)
    }
}

/// A file of an [`OverlayDir`]; all handles are the same.
#[derive(Debug)]
struct OverlayFile {
    target: String,
    under: Option<OsFile>,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    length: u64,
    /// Bytes of the file beneath that still show; behind them, zeroes.
    shown: u64,
    /// Pages that were changed.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl OverlayFile {
    fn new(target: String, under: Option<OsFile>, length: u64) -> Self {
        let content = Content { length, shown: length, pages: BTreeMap::new() };
        Self { target, under, content: Mutex::new(content) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies beneath, zeroes where nothing does.
    fn beneath(&self, shown: u64, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let there = shown.saturating_sub(offset).min(buf.len() as u64);
        let (inside, beyond) = buf.split_at_mut(in_memory(there));
        beyond.fill(0);
        let Some(under) = self.under.as_ref().filter(|_| there > 0) else { return Ok(()) };
        let read = under.read_exact_at(inside, offset);
        read.map_err(|error| DeviceError::from_io(Action::Read, &self.target, error))
    }

    /// A page as it stands.
    fn page(&self, content: &Content, number: u64) -> Result<Vec<u8>, DeviceError> {
        if let Some(page) = content.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; in_memory(PAGE_BYTES)];
        self.beneath(content.shown, number * PAGE_BYTES, &mut page)?;
        Ok(page)
    }

    /// Changes bytes within one page.
    fn change(
        &self,
        content: &mut Content,
        offset: u64,
        with: impl FnOnce(&mut [u8]),
        length: u64,
    ) -> Result<(), DeviceError> {
        let number = offset / PAGE_BYTES;
        let mut page = self.page(content, number)?;
        let from = in_memory(offset % PAGE_BYTES);
        with(&mut page[from..from + in_memory(length)]);
        content.pages.insert(number, page);
        Ok(())
    }
}

/// A range cut at the ends of pages.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset.saturating_add(length);
    let mut at = offset;
    std::iter::from_fn(move || {
        let start = at;
        at = end.min((start / PAGE_BYTES + 1) * PAGE_BYTES);
        (start < end).then_some((start, at - start))
    })
}

impl File for OverlayFile {
    fn len(&self) -> Result<u64, DeviceError> {
        Ok(self.content().length)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let content = self.content();
        crate::range_check(&self.target, content.length, offset, buf.len() as u64)?;
        self.beneath(content.shown, offset, buf)?;
        let end = offset + buf.len() as u64;
        for (number, page) in content.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let (first, last) = (number * PAGE_BYTES, (number + 1) * PAGE_BYTES);
            let (from, to) = (first.max(offset), last.min(end));
            let piece = &page[in_memory(from - first)..in_memory(to - first)];
            buf[in_memory(from - offset)..in_memory(to - offset)].copy_from_slice(piece);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let mut content = self.content();
        for (start, length) in pieces(offset, data.len() as u64) {
            let from = in_memory(start - offset);
            let part = &data[from..from + in_memory(length)];
            self.change(&mut content, start, |bytes| bytes.copy_from_slice(part), length)?;
        }
        content.length = content.length.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), DeviceError> {
        let mut content = self.content();
        if length < content.length {
            // What is cut off reads as zeroes should the file grow again.
            content.pages.retain(|number, _| number * PAGE_BYTES < length);
            content.shown = content.shown.min(length);
            let rest = length % PAGE_BYTES;
            if let Some(page) = content.pages.get_mut(&(length / PAGE_BYTES)) {
                page[in_memory(rest)..].fill(0);
            }
        }
        content.length = length;
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let mut content = self.content();
        content.length = content.length.max(offset.saturating_add(length));
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let mut content = self.content();
        crate::range_check(&self.target, content.length, offset, length)?;
        for (start, length) in pieces(offset, length) {
            self.change(&mut content, start, |bytes| bytes.fill(0), length)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Within a page or a caller's buffer.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("no longer than what is in memory")
}
