//! Listed points; naming and pinning them; what keeps history, and how long.

use super::Replica;
use crate::body::{Body, Pin, PointNote};
use crate::error::{PointError, RoleError, StorageError};
use crate::line::Line;
use crate::sync::lock;
use crate::timeline::Point;
use crate::tree;
use landfall_types::{LogId, Lsn, UnixNanos};

/// Most pinned and named points: the superblock holds them all.
const NOTES_MAX: usize = 1_024;

/// What keeps the image from going on, and so history from expiring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldKind {
    /// A person has pinned the point.
    Pin {
        /// Who.
        by: String,
        /// Milliseconds left; none: until it is unpinned.
        left_ms: Option<u64>,
    },
    /// A view is open: as long as someone reads it.
    View,
    /// A test branch: until it is cleaned up.
    TestBranch(String),
    /// The branch with authority, before commit: the point can still be changed.
    Authority(String),
    /// Divergence: until it is discarded.
    Divergence(String),
    /// A window is open: no position behind its opening is a recovery point (trap T-6).
    Window,
    /// Old content of foreign disks: the image is not written before it is discarded (trap T-15).
    OldDisks,
    /// A fold that can still be undone: until commit.
    Undo,
    /// A sender has not sent these records yet: only they are kept, the image goes on.
    Sender,
}

/// One thing that keeps history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// What.
    pub kind: HoldKind,
    /// Nothing behind this position is given up because of it.
    pub lsn: Lsn,
}

impl Replica {
    /// The markers that are listed, within `from ..= through`, oldest first.
    pub(crate) fn listed(&self, body: &Body, line: &Line, from: Lsn, through: Lsn) -> Vec<Point> {
        let mut points = line.with_timeline(|timeline| timeline.points(from, through));
        let notes: Vec<&PointNote> = self.notes(body).collect();
        let keeper = lock(&self.keeper);
        let same_log = keeper.listing.log() == line.log.id();
        points.retain_mut(|point| {
            let note = notes.iter().find(|note| note.lsn == point.lsn);
            if let Some(name) = note.and_then(|note| note.name.as_ref()) {
                point.marker.name = Some(name.clone());
            }
            note.is_some()
                || point.marker.name.is_some()
                || !same_log
                || keeper.listing.lists(point.lsn)
        });
        points
    }

    /// Notes on points that can still be chosen: a note on the part of a log that lost is void.
    pub(super) fn notes<'a>(&self, body: &'a Body) -> impl Iterator<Item = &'a PointNote> {
        let first = Self::first_choice(body);
        let holds = move |note: &&PointNote| {
            note.lsn >= first
                && tree::shared_through(&body.logs, body.log, note.log, note.lsn) == note.lsn
        };
        body.notes.iter().filter(holds)
    }

    /// Pins that are in force.
    pub(super) fn pins(&self, body: &Body) -> Vec<(Lsn, Pin)> {
        let clock_ms = lock(&self.keeper).listing.clock_ms();
        let in_force = |pin: &Pin| pin.until_ms.is_none_or(|until| until > clock_ms);
        let pinned = self.notes(body).filter_map(|note| Some((note.lsn, note.pin.clone()?)));
        pinned.filter(|(_, pin)| in_force(pin)).collect()
    }

    /// Everything that keeps history, the earliest first.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn holds(&self) -> Result<Vec<Hold>, StorageError> {
        let body = self.body()?;
        let line = self.line();
        let mut all = self.folding_holds(&body);
        let through = line.settled();
        let legal = line.with_timeline(|t| t.newest_legal(body.folded, through));
        if line.with_timeline(|timeline| !timeline.windows().legal()) {
            all.push(Hold { kind: HoldKind::Window, lsn: legal.unwrap_or(body.folded) });
        }
        if body.divergence.iter().any(|entry| entry.log.is_none() && !entry.discarded) {
            all.push(Hold { kind: HoldKind::OldDisks, lsn: body.folded });
        }
        if body.undo.is_some() {
            all.push(Hold { kind: HoldKind::Undo, lsn: body.folded });
        }
        let sent = *lock(&self.trim_limit);
        if sent < line.log.tail().lsn {
            all.push(Hold { kind: HoldKind::Sender, lsn: sent });
        }
        all.sort_by_key(|hold| hold.lsn);
        Ok(all)
    }

    /// What the image must not pass.
    fn folding_holds(&self, body: &Body) -> Vec<Hold> {
        let clock_ms = lock(&self.keeper).listing.clock_ms();
        let shared = |log: LogId, at: Lsn| tree::shared_through(&body.logs, body.log, log, at);
        let mut all = Vec::new();
        for (log, at, _) in self.viewed() {
            all.push(Hold { kind: HoldKind::View, lsn: shared(log, at) });
        }
        for branch in body.branches.iter().filter(|branch| branch.log != body.log) {
            let kind = match branch.lineage {
                Some(_) => HoldKind::Authority(branch.name.clone()),
                None => HoldKind::TestBranch(branch.name.clone()),
            };
            all.push(Hold { kind, lsn: shared(branch.log, branch.fork) });
        }
        for entry in body.divergence.iter().filter(|entry| !entry.discarded) {
            if let Some(log) = entry.log {
                let kind = HoldKind::Divergence(entry.name.clone());
                all.push(Hold { kind, lsn: shared(log, entry.after) });
            }
        }
        for (lsn, pin) in self.pins(body) {
            let left_ms = pin.until_ms.map(|until| until.saturating_sub(clock_ms));
            all.push(Hold { kind: HoldKind::Pin { by: pin.by, left_ms }, lsn });
        }
        all
    }

    /// How far the image can go without taking content away from a view, a branch, divergence that
    /// is kept, or a pinned point.
    pub(crate) fn pin(&self, body: &Body) -> Lsn {
        let holds = self.folding_holds(body).into_iter();
        holds.map(|hold| hold.lsn).min().unwrap_or(Lsn::MAX)
    }

    /// Keeps a listed point from expiring, durably, for `for_ms` milliseconds of the replica's
    /// running time or until it is unpinned. Pinned already: the new time counts.
    ///
    /// # Errors
    /// [`PointError::NoMarker`], [`PointError::TooMany`], storage errors.
    pub fn pin_point(&self, lsn: Lsn, by: &str, for_ms: Option<u64>) -> Result<(), RoleError> {
        let clock_ms = lock(&self.keeper).listing.clock_ms();
        let until_ms = for_ms.map(|for_ms| clock_ms.saturating_add(for_ms));
        self.note(lsn, |note| note.pin = Some(Pin { by: by.to_owned(), until_ms }))
    }

    /// Lets a point expire again. Not pinned: no error.
    ///
    /// # Errors
    /// Storage errors.
    pub fn unpin_point(&self, lsn: Lsn) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        body.notes.iter_mut().filter(|note| note.lsn == lsn).for_each(|note| note.pin = None);
        body.notes.retain(|note| note.pin.is_some() || note.name.is_some());
        Ok(core.store.write(body)?)
    }

    /// Gives a listed point a name, durably; `None` takes it away. The name that its marker was
    /// written with comes back then.
    ///
    /// # Errors
    /// [`PointError::NoMarker`], [`PointError::NameTaken`], [`PointError::TooMany`], storage
    /// errors.
    pub fn name_point(&self, lsn: Lsn, name: Option<&str>) -> Result<(), RoleError> {
        if let Some(name) = name {
            let choices = self.choices()?;
            let taken = |point: &&Point| point.marker.name.as_deref() == Some(name);
            if let Some(point) = choices.points.iter().find(taken).filter(|p| p.lsn != lsn) {
                return Err(PointError::NameTaken { name: name.to_owned(), lsn: point.lsn }.into());
            }
        }
        self.note(lsn, |note| note.name = name.map(str::to_owned))
    }

    fn note(&self, lsn: Lsn, change: impl FnOnce(&mut PointNote)) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        let line = self.line();
        let through = line.settled();
        let first = Self::first_choice(&body);
        if self.listed(&body, &line, first.max(lsn), through.min(lsn)).is_empty() {
            return Err(PointError::NoMarker { lsn }.into());
        }
        let log = body.log;
        // One for each position; what is void gives its place up.
        let kept: Vec<PointNote> = self.notes(&body).cloned().collect();
        body.notes = kept;
        let at = body.notes.iter().position(|note| note.lsn == lsn).unwrap_or_else(|| {
            body.notes.push(PointNote { log, lsn, name: None, pin: None });
            body.notes.len() - 1
        });
        change(&mut body.notes[at]);
        body.notes.retain(|note| note.pin.is_some() || note.name.is_some());
        if body.notes.len() > NOTES_MAX {
            return Err(PointError::TooMany(NOTES_MAX).into());
        }
        Ok(core.store.write(body)?)
    }

    /// The source's time of the marker at a position, if there is one.
    pub(super) fn marker_time(line: &Line, at: Lsn) -> Option<UnixNanos> {
        let found = line.with_timeline(|timeline| timeline.points(at, at));
        found.first().map(|point| point.marker.time())
    }
}
