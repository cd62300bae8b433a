//! Room that is handed out by rank, so that what matters most is refused last (trap T-21): a
//! directory whose files get space only while enough is left for those of higher rank.

use crate::{Action, Claim, DeviceError, Dir, File};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Who wants room, the most dispensable first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// Test branches, and all else that only tries something.
    Trial,
    /// What keeps old points: undo, copies.
    History,
    /// Records of machines whose authority is elsewhere.
    Ingest,
    /// The log of a branch with authority: a machine runs from it, and stops without room.
    Authority,
}

impl Rank {
    /// How many reserves have to stay untouched when this rank gets something.
    const fn reserves(self) -> u64 {
        match self {
            Self::Trial => 3,
            Self::History => 2,
            Self::Ingest => 1,
            Self::Authority => 0,
        }
    }
}

/// The room of one volume. Shared by all directories on it.
pub struct Room {
    volume: Arc<dyn Dir>,
    reserve_bytes: u64,
    /// Held from the look at the free bytes until the space is taken: two that look at the same
    /// bytes would both get them.
    taking: Mutex<()>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("reserve_bytes", &self.reserve_bytes).finish_non_exhaustive()
    }
}

impl Room {
    /// Of the volume that `volume` lies on. `reserve_bytes` are kept for [`Rank::Authority`] alone,
    /// as many more for it and [`Rank::Ingest`], and as many more against [`Rank::Trial`].
    #[must_use]
    pub fn new(volume: Arc<dyn Dir>, reserve_bytes: u64) -> Arc<Self> {
        Arc::new(Self { volume, reserve_bytes, taking: Mutex::new(()) })
    }

    /// Bytes that are kept for [`Rank::Authority`] alone.
    #[must_use]
    pub const fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// The highest rank that would be refused `bytes` now; `None`: nobody would.
    ///
    /// # Errors
    /// [`DeviceError`] when the volume does not say how much is free.
    pub fn refused(&self, bytes: u64) -> Result<Option<Rank>, DeviceError> {
        let Some(free) = self.volume.free_bytes()? else { return Ok(None) };
        let ranks = [Rank::Authority, Rank::Ingest, Rank::History, Rank::Trial];
        Ok(ranks.into_iter().find(|rank| !grants(free, bytes, *rank, self.reserve_bytes)))
    }

    /// Bytes that would have to become free before `rank` gets `bytes`; 0 where it gets them now.
    ///
    /// # Errors
    /// [`DeviceError`] when the volume does not say how much is free.
    pub fn missing(&self, rank: Rank, bytes: u64) -> Result<u64, DeviceError> {
        let Some(free) = self.volume.free_bytes()? else { return Ok(0) };
        let kept = self.reserve_bytes.saturating_mul(rank.reserves());
        Ok(kept.saturating_add(bytes).saturating_sub(free))
    }

    /// Runs `take` if `rank` may have `bytes` more.
    fn take<T>(
        &self,
        rank: Rank,
        bytes: u64,
        target: &str,
        take: impl FnOnce() -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        // A volume that does not say is left to say no by itself.
        if let Some(free) = self.volume.free_bytes()?
            && !grants(free, bytes, rank, self.reserve_bytes)
        {
            return Err(DeviceError::Full { action: Action::Resize, target: target.to_owned() });
        }
        take()
    }
}

/// Whether someone of this rank gets `bytes` while `free` are free. What is had already is granted.
const fn grants(free: u64, bytes: u64, rank: Rank, reserve_bytes: u64) -> bool {
    let Some(kept) = reserve_bytes.checked_mul(rank.reserves()) else { return bytes == 0 };
    let Some(needed) = kept.checked_add(bytes) else { return bytes == 0 };
    bytes == 0 || free >= needed
}

/// A rank that can change while files of it are open: a branch that loses authority.
pub type RankNow = Arc<dyn Fn() -> Rank + Send + Sync>;

/// A directory whose files get room by rank when they reserve it ([`File::allocate`]).
pub struct RankedDir {
    inner: Arc<dyn Dir>,
    room: Arc<Room>,
    rank: RankNow,
}

impl fmt::Debug for RankedDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RankedDir").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl RankedDir {
    /// `inner`, with room by the rank that `rank` says at the time.
    #[must_use]
    pub fn new(inner: Arc<dyn Dir>, room: Arc<Room>, rank: RankNow) -> Arc<Self> {
        Arc::new(Self { inner, room, rank })
    }

    fn file(&self, name: &str, inner: Arc<dyn File>) -> Arc<dyn File> {
        let (room, rank) = (Arc::clone(&self.room), Arc::clone(&self.rank));
        Arc::new(RankedFile { inner, room, rank, name: name.to_owned() })
    }
}

impl Dir for RankedDir {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        Ok(self.file(name, self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        Ok(self.file(name, self.inner.open(name)?))
    }
    fn list(&self) -> Result<Vec<String>, DeviceError> {
        self.inner.list()
    }
    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        self.inner.rename(from, to)
    }
    fn sync(&self) -> Result<(), DeviceError> {
        self.inner.sync()
    }
    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        let inner = self.inner.subdir(name)?;
        Ok(Self::new(inner, Arc::clone(&self.room), Arc::clone(&self.rank)))
    }
    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        self.inner.list_subdirs()
    }
    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        self.inner.remove_subdir(name)
    }
    fn sector_bytes(&self) -> u32 {
        self.inner.sector_bytes()
    }
    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        self.inner.free_bytes()
    }
    fn claim(&self) -> Result<Claim, DeviceError> {
        self.inner.claim()
    }
    fn takes_background_work(&self) -> bool {
        self.inner.takes_background_work()
    }
    fn data_key(&self) -> Option<landfall_crypt::DataKey> {
        self.inner.data_key()
    }
    fn ranked(&self, rank: RankNow) -> Option<Arc<dyn Dir>> {
        Some(Self::new(Arc::clone(&self.inner), Arc::clone(&self.room), rank))
    }
}

/// A file of a [`RankedDir`].
struct RankedFile {
    inner: Arc<dyn File>,
    room: Arc<Room>,
    rank: RankNow,
    name: String,
}

impl fmt::Debug for RankedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RankedFile").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl File for RankedFile {
    fn len(&self) -> Result<u64, DeviceError> {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.inner.write_at(offset, data)
    }
    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DeviceError> {
        self.inner.write_all_at(offset, parts)
    }
    fn set_len(&self, length: u64) -> Result<(), DeviceError> {
        self.inner.set_len(length)
    }
    fn allocate(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let has = self.inner.len()?;
        let more = offset.saturating_add(length).saturating_sub(has);
        let take = || self.inner.allocate(offset, length);
        self.room.take((self.rank)(), more, &self.name, take)
    }
    fn punch(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.inner.punch(offset, length)
    }
    fn sync_data(&self) -> Result<(), DeviceError> {
        self.inner.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FsDir;

    /// T-21: each rank is refused before the next higher one, and the reserve goes to nobody but
    /// the highest.
    #[test]
    fn t21_the_dispensable_is_refused_first() {
        let (bytes, reserve) = (64, 100);
        let refused_below =
            [(Rank::Trial, 364), (Rank::History, 264), (Rank::Ingest, 164), (Rank::Authority, 64)];
        for free in 0..400 {
            for (rank, least) in refused_below {
                assert_eq!(grants(free, bytes, rank, reserve), free >= least, "{free} {rank:?}");
            }
        }
        assert!(!grants(u64::MAX, u64::MAX, Rank::Trial, u64::MAX), "no overflow lets it through");
        assert!(grants(u64::MAX, u64::MAX, Rank::Authority, 5));
    }

    /// What is there already needs no more room, whatever the rank.
    #[test]
    fn only_growth_is_asked_for() {
        let temp = tempfile::tempdir().expect("temp dir");
        let inner: Arc<dyn Dir> = Arc::new(FsDir::open(temp.path()).expect("open"));
        let room = Room::new(Arc::clone(&inner), u64::MAX / 8);
        let rank = Arc::new(Mutex::new(Rank::Authority));
        let now = Arc::clone(&rank);
        let ranked =
            RankedDir::new(inner, Arc::clone(&room), Arc::new(move || *now.lock().unwrap()));
        let file = ranked.create("a").expect("create");
        file.allocate(0, 8192).expect("authority gets the reserve");
        *rank.lock().unwrap() = Rank::Ingest;
        file.allocate(0, 8192).expect("it has that");
        assert!(matches!(file.allocate(0, 8193), Err(DeviceError::Full { .. })));
        assert_eq!(file.len().expect("len"), 8192, "nothing was taken");
        assert_eq!(room.refused(4096).expect("free"), Some(Rank::Ingest));
    }
}
