//! Carrying the policy out: what is listed, what has expired. The caller brings a monotonic clock,
//! and folds.

use super::Replica;
use crate::body::{Body, ImageOwner, PointNote};
use crate::error::{RoleError, StorageError};
use crate::line::Line;
use crate::replica::OLD_DISKS;
use crate::retention::{Listing, Meter, Rates, ShortenCause, Table};
use crate::sync::{lock, read};
use crate::tree;
use landfall_blockdev::Dir;
use landfall_types::{LogId, Lsn, RetentionPolicy};
use std::sync::Arc;

/// Milliseconds between two writes of the list of points: what is forgotten by a kill is that much
/// of everybody's age.
const SAVE_EVERY_MS: u64 = 30_000;

/// The list of points, and when it was last made durable.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) listing: Listing,
    pub(super) meter: Meter,
    sequence: u64,
    /// The caller's clock at the first look, and the replica's then.
    origin: Option<(u64, u64)>,
    saved_at_ms: u64,
}

impl Keeper {
    pub(super) fn open(dir: &dyn Dir, log: LogId) -> Self {
        let found = Table::load(dir);
        let (sequence, table) = found
            .unwrap_or_else(|| (0, Table { listing: Listing::new(log), meter: Meter::default() }));
        let Table { listing, meter } = table;
        let saved_at_ms = listing.clock_ms();
        Self { listing, meter, sequence, origin: None, saved_at_ms }
    }

    /// The replica's clock of running time.
    fn clock_ms(&mut self, now_ms: u64) -> u64 {
        let clock_ms = self.listing.clock_ms();
        let (first_ms, base_ms) = *self.origin.get_or_insert((now_ms, clock_ms));
        base_ms + now_ms.saturating_sub(first_ms)
    }
}

/// Why the image should go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DueCause {
    /// A fold was cut off.
    CutOff,
    /// A failover was committed: what lies before its fork can't be chosen any more.
    Committed,
    /// Older than the policy asks for.
    Expired,
    /// Room is needed.
    Room(ShortenCause),
}

/// A fold that should be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Where to.
    pub to: Lsn,
    /// Why.
    pub cause: DueCause,
}

impl Replica {
    /// Changes the policy, durably. It is in force with the next [`Replica::retain`].
    ///
    /// # Errors
    /// Storage errors. The caller has validated it.
    pub fn set_retention(&self, policy: &RetentionPolicy) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if body.retention == *policy {
            return Ok(());
        }
        body.retention = policy.clone();
        Ok(core.store.write(body)?)
    }

    /// Looks at the clock and the log: new markers are listed, others are taken off the list by the
    /// schedule. Says where the image should be folded to; `give_up_bytes` is what the retention
    /// volume wants back from this replica. Writes the list of points now and then.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn retain(&self, now_ms: u64, give_up_bytes: u64) -> Result<Option<Due>, StorageError> {
        let body = self.body()?;
        let line = self.line();
        self.look(&body, &line, now_ms);
        self.forget_void_notes(&body)?;
        if let Some(to) = self.fold_pending()? {
            // A release that was cut off is gone on with by its order, with its undo.
            // Further than it was begun to where its own position has rotted.
            let to = self.fold_limit(to)?;
            return Ok(to.map(|to| Due { to, cause: DueCause::CutOff }));
        }
        // Home's disks are touched by the release alone, which keeps the undo (traps T-13, T-15).
        let home = body.disks.iter().any(|disk| disk.owner == ImageOwner::Foreign)
            && body.divergence.iter().any(|entry| entry.name == OLD_DISKS);
        if home {
            return Ok(None);
        }
        self.due(&body, give_up_bytes)
    }

    fn look(&self, body: &Body, line: &Line, now_ms: u64) {
        let through = line.settled();
        let first = Self::first_choice(body);
        let notes: Vec<Lsn> = self.notes(body).map(|note| note.lsn).collect();
        let appended = self.appended_bytes();
        let mut keeper = lock(&self.keeper);
        let clock_ms = keeper.clock_ms(now_ms);
        let (old, known) = (keeper.listing.log(), keeper.listing.through());
        if old != line.log.id() {
            let fork = tree::shared_through(&body.logs, line.log.id(), old, known);
            keeper.listing.fork(line.log.id(), fork);
        }
        let after = keeper.listing.through().next().max(first);
        let found = line.with_timeline(|timeline| timeline.points(after, through));
        keeper.listing.look(clock_ms, &found, through);
        keeper.listing.forget_before(first);
        keeper.listing.thin(&body.retention.thinning, |lsn| notes.contains(&lsn));
        keeper.listing.recover(body.retention.keep_ms());
        keeper.meter.look(now_ms, appended);
        if clock_ms >= keeper.saved_at_ms + SAVE_EVERY_MS {
            drop(keeper);
            self.save_points();
        }
    }

    /// Makes the list of points durable: at the end of the process, so that nothing of anybody's
    /// age is forgotten. A failure costs only that, and is logged.
    pub fn save_points(&self) {
        let mut keeper = lock(&self.keeper);
        keeper.sequence += 1;
        keeper.saved_at_ms = keeper.listing.clock_ms();
        let table = Table { listing: keeper.listing.clone(), meter: keeper.meter.clone() };
        if let Err(error) = table.save(&*self.dir, keeper.sequence) {
            let replica = self.id;
            tracing::warn!(%replica, %error, "the list of points can't be written");
        }
    }

    /// Pins whose time is over, and notes on points that are gone.
    fn forget_void_notes(&self, body: &Body) -> Result<(), StorageError> {
        if body.notes.is_empty() {
            return Ok(());
        }
        let in_force = self.pins(body);
        let pinned = |note: &PointNote| in_force.iter().any(|(lsn, _)| *lsn == note.lsn);
        let left = |note: &PointNote| {
            let pin = note.pin.clone().filter(|_| pinned(note));
            PointNote { pin, ..note.clone() }
        };
        let mut notes: Vec<PointNote> = self.notes(body).map(left).collect();
        notes.retain(|note| note.pin.is_some() || note.name.is_some());
        if notes == body.notes {
            return Ok(());
        }
        let mut core = lock(&self.core);
        let now = core.store.body()?.clone();
        // Somebody has put another one meanwhile: the next look finds what is void.
        if now.notes == body.notes { core.store.write(Body { notes, ..now }) } else { Ok(()) }
    }

    /// Where the image should go: as far as a commit, the age and the size ask for. It stops at
    /// listed markers, so that the oldest content that can be had is a point with a time, and the
    /// newest point never goes (trap T-6).
    fn due(&self, body: &Body, give_up_bytes: u64) -> Result<Option<Due>, StorageError> {
        let over_limit = body.retention.size_bytes.map_or(0, |limit| {
            let (_, bytes) = self.journal_size();
            bytes.saturating_sub(limit)
        });
        let wanted = {
            let behind = |bytes: u64| self.end_of_oldest(body, bytes);
            let (limit, volume) = (behind(over_limit), behind(give_up_bytes));
            let keeper = lock(&self.keeper);
            let expired = keeper.listing.expired(body.retention.keep_ms());
            let marker = |end: Option<Lsn>| end.and_then(|end| keeper.listing.at_or_behind(end));
            let committed = (body.points_from > body.folded).then_some(body.points_from);
            [
                (committed, DueCause::Committed),
                (expired, DueCause::Expired),
                (marker(limit), DueCause::Room(ShortenCause::SizeLimit)),
                (marker(volume), DueCause::Room(ShortenCause::VolumeFull)),
            ]
        };
        // The mildest cause that goes furthest.
        let mut best: Option<Due> = None;
        for (to, cause) in wanted {
            let Some(to) = to else { continue };
            let Some(to) = self.fold_limit(to)? else { continue };
            if best.is_none_or(|best| to > best.to) {
                best = Some(Due { to, cause });
            }
        }
        Ok(best)
    }

    /// History had to go before its time: said until it is as long as is asked for again.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn note_shortened(&self, cause: ShortenCause) -> Result<(), StorageError> {
        let body = self.body()?;
        let first = Self::first_choice(&body);
        let mut keeper = lock(&self.keeper);
        keeper.listing.forget_before(first);
        keeper.listing.note_shortened(cause, body.retention.keep_ms());
        Ok(())
    }

    /// The last position of the oldest segments that take `bytes` on the volume: what has to be
    /// folded for them to go. None when nothing has to go, or nothing more can.
    fn end_of_oldest(&self, body: &Body, bytes: u64) -> Option<Lsn> {
        if bytes == 0 {
            return None;
        }
        let core = lock(&self.core);
        let mut end = None;
        let mut left = bytes;
        // The oldest log of the path first.
        for (log, _) in tree::path(&body.logs, body.log, Lsn::MAX).into_iter().rev() {
            let Ok((log, _)) = core.log(log) else { continue };
            let stat = log.stat();
            let share = stat.file_bytes / (stat.segments.len() + stat.spare_files).max(1) as u64;
            for segment in stat.segments.iter().filter(|segment| segment.last > body.folded) {
                if left == 0 {
                    return end;
                }
                end = Some(segment.last);
                left = left.saturating_sub(share);
            }
        }
        end
    }

    /// Bytes appended to all logs since the process began.
    fn appended_bytes(&self) -> u64 {
        let mut lines = vec![self.line()];
        lines.extend(read(&self.branches).values().map(|branch| Arc::clone(branch.line())));
        lines.dedup_by(|a, b| Arc::ptr_eq(a, b));
        lines.iter().map(|line| line.appended_bytes()).sum()
    }

    /// How fast the journal grows.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        lock(&self.keeper).meter.rates()
    }
}
