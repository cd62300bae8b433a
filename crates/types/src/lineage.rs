//! The chain of epochs with the LSN at which each forked: compared before any LSN is (design
//! section 14.1).

use crate::{Epoch, EpochId, Lsn};

/// Most epochs that one lineage holds.
pub const LINEAGE_ENTRIES_MAX: usize = 4096;

/// One epoch and where it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct LineageEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// The last LSN of the parent that this epoch stands on; its own first record is `fork + 1`.
    pub fork: Lsn,
}

/// All epochs of one history, oldest first; never empty.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<LineageEntry>", into = "Vec<LineageEntry>")]
pub struct Lineage(Vec<LineageEntry>);

/// Why a chain of epochs is not a lineage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineageError {
    /// No epoch at all.
    #[error("a lineage has at least one epoch")]
    Empty,
    /// More than [`LINEAGE_ENTRIES_MAX`].
    #[error("a lineage of {0} epochs, more than {LINEAGE_ENTRIES_MAX}")]
    TooLong(usize),
    /// The number does not rise.
    #[error("epoch {new} does not follow {old}: its number must be higher")]
    NotHigher {
        /// The one before.
        old: Epoch,
        /// The one refused.
        new: Epoch,
    },
    /// The parent is another one.
    #[error("epoch {new} names another parent than {old}")]
    OtherParent {
        /// The one before.
        old: Epoch,
        /// The one refused.
        new: Epoch,
    },
    /// Forked before its parent began.
    #[error("epoch {epoch} forks at {fork}, before its parent's own fork at {parent_fork}")]
    ForkBeforeParent {
        /// The one refused.
        epoch: Epoch,
        /// Its fork.
        fork: Lsn,
        /// Its parent's fork.
        parent_fork: Lsn,
    },
}

impl Lineage {
    /// A machine's first epoch.
    #[must_use]
    pub fn root(epoch: Epoch) -> Self {
        Self(vec![LineageEntry { epoch, fork: Lsn::ZERO }])
    }

    /// From its entries, oldest first.
    ///
    /// # Errors
    /// [`LineageError`] when they do not form one.
    pub fn from_entries(entries: Vec<LineageEntry>) -> Result<Self, LineageError> {
        if entries.len() > LINEAGE_ENTRIES_MAX {
            return Err(LineageError::TooLong(entries.len()));
        }
        let mut entries = entries.into_iter();
        let mut lineage = Self(vec![entries.next().ok_or(LineageError::Empty)?]);
        for entry in entries {
            lineage = lineage.extend(entry.epoch, entry.fork)?;
        }
        Ok(lineage)
    }

    /// This lineage with one more epoch that forks at `fork`.
    ///
    /// # Errors
    /// [`LineageError`] when the number does not rise, the parent is another, or the fork lies
    /// before the parent's.
    pub fn extend(&self, epoch: Epoch, fork: Lsn) -> Result<Self, LineageError> {
        let last = self.last();
        if epoch.number <= last.epoch.number {
            return Err(LineageError::NotHigher { old: last.epoch, new: epoch });
        }
        if epoch.parent != Some(last.epoch.id) {
            return Err(LineageError::OtherParent { old: last.epoch, new: epoch });
        }
        if fork < last.fork {
            return Err(LineageError::ForkBeforeParent { epoch, fork, parent_fork: last.fork });
        }
        if self.0.len() >= LINEAGE_ENTRIES_MAX {
            return Err(LineageError::TooLong(self.0.len() + 1));
        }
        let mut entries = self.0.clone();
        entries.push(LineageEntry { epoch, fork });
        Ok(Self(entries))
    }

    /// The newest entry.
    #[must_use]
    pub fn last(&self) -> &LineageEntry {
        self.0.last().expect("a lineage is never empty")
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.last().epoch
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[LineageEntry] {
        &self.0
    }

    /// Where `epoch` forked; `None` when it is not in this lineage.
    #[must_use]
    pub fn fork_of(&self, epoch: EpochId) -> Option<Lsn> {
        self.0.iter().find(|entry| entry.epoch.id == epoch).map(|entry| entry.fork)
    }

    /// True when every epoch of `self` stands in `other` at the same place: `other` continues
    /// `self`.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The last LSN up to which both tell the same history; `None` when not even their first epochs
    /// agree.
    #[must_use]
    pub fn common_through(&self, other: &Self) -> Option<Lsn> {
        let shared = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        if shared == 0 {
            return None;
        }
        let fork = |lineage: &Self| lineage.0.get(shared).map_or(Lsn::MAX, |entry| entry.fork);
        Some(fork(self).min(fork(other)))
    }
}

impl TryFrom<Vec<LineageEntry>> for Lineage {
    type Error = LineageError;
    fn try_from(entries: Vec<LineageEntry>) -> Result<Self, Self::Error> {
        Self::from_entries(entries)
    }
}
impl From<Lineage> for Vec<LineageEntry> {
    fn from(lineage: Lineage) -> Self {
        lineage.0
    }
}
