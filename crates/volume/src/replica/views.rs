//! Views: read-only content at a position; and the choice of positions.

use super::{Core, Replica, geometries};
use crate::body::Body;
use crate::error::{ContentError, PointError, RoleError, StorageError};
use crate::index::Scene;
use crate::medium::{Geometries, Medium, zeroes};
use crate::sync::{lock, read};
use crate::timeline::{Point, PointSelector};
use crate::tree;
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, LogId, Lsn};
use std::sync::Arc;

/// What a view needs; the replica keeps a weak reference, for pins and pruning.
#[derive(Debug)]
pub(crate) struct ViewState {
    medium: Arc<Medium>,
    scene: Scene,
    geometries: Geometries,
    /// The log that it was opened on: what of it the image may take in changes when another log
    /// becomes the replica's.
    log: LogId,
    at: Lsn,
}

/// Read-only content at one position. As long as it is held, fold and trim leave it what it needs.
#[derive(Clone, Debug)]
pub struct View(Arc<ViewState>);

impl View {
    /// Where.
    #[must_use]
    pub fn at(&self) -> Lsn {
        self.0.at
    }

    /// Size and sectors of a disk there (trap T-9); `None` when there is no such disk.
    #[must_use]
    pub fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        self.0.geometries.get(&disk).copied()
    }

    /// The range cut into stretches, in order and covering it whole: true where it is known to read
    /// as zeroes.
    #[must_use]
    pub fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        let _trims = read(&self.0.medium.trims);
        zeroes(&self.0.scene, disk, range)
    }

    /// Fills `buf` from `offset`; every payload is checked against its CRC, corrupt bytes are never
    /// served.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        let _trims = read(&self.0.medium.trims);
        self.0.medium.read(&self.0.scene, self.geometry(disk), (disk, offset), buf)
    }
}

/// What can be chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choices {
    /// Markers outside windows that are listed, oldest first; with the names that were given
    /// afterwards.
    pub points: Vec<Point>,
    /// Which of them are pinned.
    pub pinned: Vec<Lsn>,
    /// Positions, both ends inclusive, that resolve to rot at some place (trap T-20).
    pub corrupt: Vec<(Lsn, Lsn)>,
    /// Every position from first to last, both inclusive.
    pub legal: Vec<(Lsn, Lsn)>,
}

impl Replica {
    /// Everything durable that can be chosen.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn choices(&self) -> Result<Choices, StorageError> {
        let body = self.body()?;
        let first = Self::first_choice(&body);
        let line = self.line();
        let through = line.settled();
        Ok(Choices {
            points: self.listed(&body, &line, first, through),
            corrupt: self
                .corrupt()?
                .into_iter()
                .map(|rot| (rot.first, rot.last.unwrap_or(Lsn::MAX)))
                .collect(),
            pinned: self.pins(&body).into_iter().map(|(lsn, _)| lsn).collect(),
            legal: line.with_timeline(|timeline| timeline.legal_ranges(first, through)),
        })
    }

    /// Newest durable recovery point; none before the first window over all disks has closed
    /// exactly.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn newest_legal(&self) -> Result<Option<Lsn>, StorageError> {
        let first = Self::first_choice(&self.body()?);
        let line = self.line();
        let through = line.settled();
        Ok(line.with_timeline(|timeline| timeline.newest_legal(first, through)))
    }

    /// Which position a choice means.
    ///
    /// # Errors
    /// [`PointError`] and storage errors, as [`RoleError`].
    pub fn resolve(&self, choice: &PointSelector) -> Result<Lsn, RoleError> {
        let body = self.body()?;
        Ok(self.resolve_in(&body, choice)?)
    }

    pub(crate) fn resolve_in(
        &self,
        body: &Body,
        choice: &PointSelector,
    ) -> Result<Lsn, PointError> {
        let line = self.line();
        let through = line.settled();
        let first = Self::first_choice(body);
        let points = match choice {
            PointSelector::Newest | PointSelector::Lsn(_) => vec![],
            PointSelector::Time(_) | PointSelector::Name(_) => {
                self.listed(body, &line, first, through)
            }
        };
        line.with_timeline(|timeline| timeline.resolve(choice, first, through, &points))
    }

    /// Opens a view at a recovery point.
    ///
    /// # Errors
    /// As [`Replica::resolve`].
    pub fn view(&self, choice: &PointSelector) -> Result<View, RoleError> {
        // Before the core: what is opened below must not refer to what is trimmed meanwhile.
        let _trims = read(&self.medium.trims);
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        let at = self.resolve_in(&body, choice)?;
        Ok(self.open_view(&core, &body, body.log, at)?)
    }

    /// Opens a view on the content that divergence holds at its end.
    ///
    /// # Errors
    /// [`RoleError::UnknownDivergence`] when there is none of this name, or it was discarded;
    /// storage errors.
    pub fn divergence_view(&self, name: &str) -> Result<View, RoleError> {
        let _trims = read(&self.medium.trims);
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        let entry = body.divergence.iter().find(|entry| entry.name == name && !entry.discarded);
        let log = entry.and_then(|entry| entry.log.map(|log| (log, entry.through)));
        let (log, through) = log.ok_or_else(|| RoleError::UnknownDivergence(name.to_owned()))?;
        Ok(self.open_view(&core, &body, log, through)?)
    }

    fn open_view(
        &self,
        core: &Core,
        body: &Body,
        log: LogId,
        at: Lsn,
    ) -> Result<View, StorageError> {
        let pin = tree::shared_through(&body.logs, body.log, log, at);
        // Pins keep the image before everything that is listed; this is the second look.
        if pin < body.horizon() {
            return Err(StorageError::LogMissing);
        }
        let line = self.line();
        let geometries = if log == body.log {
            line.with_timeline(|timeline| geometries(body, timeline, at))
        } else {
            geometries(body, &core.timeline(body, log, at)?, at)
        };
        let state = Arc::new(ViewState {
            medium: Arc::clone(&self.medium),
            scene: core.scene(&self.medium, body, log, Some(at))?,
            geometries,
            log,
            at,
        });
        let mut views = lock(&self.views);
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(&state));
        Ok(View(state))
    }

    /// Log and position of every open view, and how many runs it reads.
    pub(crate) fn viewed(&self) -> Vec<(LogId, Lsn, usize)> {
        let views = lock(&self.views);
        let open = views.iter().filter_map(std::sync::Weak::upgrade);
        open.map(|view| (view.log, view.at, view.scene.run_count())).collect()
    }
}
