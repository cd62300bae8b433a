use crate::JournalError;
use crate::bugs::{Bugs, SeededBug};
use crate::format::superblock::{COPIES, COPY_STRIDE, FILE_NAME, Superblock};
use crate::format::{BLOCK_BYTES, NotOurs};
use crate::recovery::decide::{CopyRelation, CopyState, SuperblockFacts};
use landfall_blockdev::{AlignedBuf, DeviceError, Dir, File};
use std::sync::Arc;

/// The file with both copies of the superblock.
#[derive(Debug)]
pub(crate) struct SuperblockFile {
    file: Arc<dyn File>,
    current: Superblock,
    /// The copy that recovery took.
    taken: u64,
}

/// What the file holds.
#[derive(Debug)]
pub(crate) struct Copies {
    file: Arc<dyn File>,
    copies: [Result<Superblock, NotOurs>; 2],
}

impl Copies {
    /// Reads both; `None` when there is no such file.
    pub(crate) fn read(dir: &dyn Dir) -> Result<Option<Self>, JournalError> {
        let fail = JournalError::device("read the superblock");
        let file = match dir.open(FILE_NAME) {
            Ok(file) => file,
            Err(DeviceError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let copies = [read_copy(&*file, 0)?, read_copy(&*file, COPY_STRIDE)?];
        Ok(Some(Self { file, copies }))
    }

    /// The first later version that a copy has.
    pub(crate) fn version(&self) -> Option<u16> {
        self.copies.iter().find_map(|copy| match copy {
            Err(NotOurs::Version(version)) => Some(*version),
            _ => None,
        })
    }

    pub(crate) fn facts(&self, records_seen: bool) -> SuperblockFacts {
        let state = |copy: &Result<Superblock, NotOurs>| match copy {
            Ok(_) => CopyState::Valid,
            Err(NotOurs::Blank) => CopyState::Blank,
            Err(NotOurs::Invalid | NotOurs::Version(_)) => CopyState::Invalid,
        };
        let relation = match &self.copies {
            [Ok(first), Ok(second)] => relation(first, second),
            _ => CopyRelation::Conflict,
        };
        let [first, second] = [state(&self.copies[0]), state(&self.copies[1])];
        SuperblockFacts { first, second, relation, records_seen }
    }

    /// Takes the chosen copy, 0 or 1.
    pub(crate) fn choose(self, copy: u64) -> Option<SuperblockFile> {
        let file = self.file;
        let [first, second] = self.copies;
        let chosen = if copy == 0 { first } else { second };
        chosen.ok().map(|current| SuperblockFile { file, current, taken: copy })
    }

    /// Both copies, for listings.
    pub(crate) const fn all(&self) -> &[Result<Superblock, NotOurs>; 2] {
        &self.copies
    }
}

fn read_copy(file: &dyn File, offset: u64) -> Result<Result<Superblock, NotOurs>, JournalError> {
    let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
    match file.read_at(offset, &mut buf) {
        Ok(()) => {}
        // The file's creation was cut off before it had its length.
        Err(DeviceError::OutOfRange { .. }) => return Ok(Err(NotOurs::Blank)),
        Err(error) => return Err(JournalError::device("read the superblock")(error)),
    }
    let block = buf.first_chunk::<BLOCK_BYTES>().expect("a block was read");
    Ok(Superblock::decode(block))
}

fn relation(first: &Superblock, second: &Superblock) -> CopyRelation {
    let one_log = first.log == second.log
        && first.replica == second.replica
        && first.sector_bytes == second.sector_bytes
        && first.segment_bytes == second.segment_bytes;
    match first.sequence.cmp(&second.sequence) {
        _ if !one_log => CopyRelation::Conflict,
        std::cmp::Ordering::Equal if first == second => CopyRelation::Same,
        std::cmp::Ordering::Equal => CopyRelation::Conflict,
        std::cmp::Ordering::Greater => CopyRelation::FirstNewer,
        std::cmp::Ordering::Less => CopyRelation::SecondNewer,
    }
}

impl SuperblockFile {
    /// Makes the file with its first content; with it the log exists. Everything that it refers to
    /// is durable before.
    pub(crate) fn create(dir: &dyn Dir, superblock: Superblock) -> Result<Self, JournalError> {
        const DOING: &str = "create the superblock";
        // Of an earlier creation that was cut off a torn copy may be there: beside a torn new one
        // it would say "corrupt" where nothing was ever promised.
        match dir.remove(FILE_NAME) {
            Ok(()) => dir.sync().map_err(JournalError::device(DOING))?,
            Err(DeviceError::NotFound { .. }) => {}
            Err(error) => return Err(JournalError::device(DOING)(error)),
        }
        let file = dir.create(FILE_NAME).map_err(JournalError::device(DOING))?;
        file.allocate(0, COPIES * COPY_STRIDE).map_err(JournalError::device(DOING))?;
        file.sync_data().map_err(JournalError::device(DOING))?;
        dir.sync().map_err(JournalError::device(DOING))?;
        let created = Self { file, current: superblock, taken: 0 };
        created.write_copies(0..COPIES, true)?;
        Ok(created)
    }

    pub(crate) const fn current(&self) -> &Superblock {
        &self.current
    }

    /// Makes `change` durable in both copies, one after the other: at every moment one of them is
    /// intact, and space that the new one gives up is not touched before both are new.
    pub(crate) fn update(
        &mut self,
        change: impl FnOnce(&mut Superblock),
        bugs: Bugs,
    ) -> Result<(), JournalError> {
        let before = self.current.clone();
        change(&mut self.current);
        self.current.sequence += 1;
        let written = self.write_copies(0..COPIES, !bugs.has(SeededBug::SuperblockWithoutFlush));
        written.inspect_err(|_| self.current = before)
    }

    /// Writes the copy that recovery did not take, after it found it lost or stale. The taken one
    /// is not touched: it may be the only one that is intact, and a power cut can garble what is
    /// being written.
    pub(crate) fn repair(&self) -> Result<(), JournalError> {
        self.sync()?;
        let lost = (0..COPIES).filter(|copy| *copy != self.taken);
        self.write_copies(lost, true)
    }

    /// `sync` is false only for a defect that tests put in.
    fn write_copies(
        &self,
        copies: impl Iterator<Item = u64>,
        sync: bool,
    ) -> Result<(), JournalError> {
        const DOING: &str = "write the superblock";
        let sector_bytes = self.current.sector_bytes as usize;
        let mut sector = AlignedBuf::zeroed(sector_bytes);
        sector[..BLOCK_BYTES].copy_from_slice(&self.current.encode());
        for copy in copies {
            let offset = copy * COPY_STRIDE;
            self.file.write_at(offset, &sector).map_err(JournalError::device(DOING))?;
            if sync {
                self.file.sync_data().map_err(JournalError::device(DOING))?;
            }
        }
        Ok(())
    }

    /// Makes durable what is there already: after a crash of the process alone, the system may hold
    /// it in memory only.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::device("sync the superblock"))
    }
}
