//! Defects that tests put in on purpose: a harness that does not find them proves nothing.

/// A defect of the order of steps; present only in tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(unreachable_pub, reason = "public with the feature `testing` only")]
pub enum SeededBug {
    /// A flush reports success without having synced.
    AckBeforeFlush,
    /// The superblock is written without a sync.
    SuperblockWithoutFlush,
    /// A trim lets segment files be used again before the superblock says that they may.
    ReuseBeforeSuperblock,
    /// After a torn tail, appending goes on in place: the cut is never made durable.
    StaleTail,
    /// A new segment file's name is not synced.
    NameNotSynced,
    /// The next segment begins before the last one is durable.
    RollBeforeFlush,
    /// Frames prove nothing about the ones before them.
    NoFloor,
}

/// Which defect is in, if any.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Bugs(Option<SeededBug>);

impl Bugs {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn seeded(bug: Option<SeededBug>) -> Self {
        Self(bug)
    }

    /// Always false outside tests: the compiler removes what depends on it.
    pub(crate) fn has(self, bug: SeededBug) -> bool {
        cfg!(any(test, feature = "testing")) && self.0 == Some(bug)
    }
}
