use crate::format::index::IndexSize;
use crate::log::cursor::{Cursor, Producers};
use crate::log::state::{State, count_fitting};
use crate::log::{Log, lock};
use crate::{JournalError, Stamp, limits};
use landfall_types::{Control, Record, RecordKind};
use std::sync::MutexGuard;

/// Checks what can be checked without the log, and decodes the control records among them.
pub(super) fn check_records(records: &[Record]) -> Result<Vec<Control>, JournalError> {
    let mut controls = Vec::new();
    for record in records {
        record.verify().map_err(JournalError::Record)?;
        if record.header.kind == RecordKind::Control {
            let control = Control::decode(&record.payload)
                .map_err(|source| JournalError::Control { lsn: record.header.lsn, source })?;
            controls.push(control);
        }
    }
    Ok(controls)
}

impl Log {
    /// Appends records that were checked; the guard proves that nobody else does.
    pub(super) fn append_checked(
        &self,
        appending: &MutexGuard<'_, ()>,
        stamp: &Stamp,
        mut records: &[Record],
        mut controls: Vec<Control>,
    ) -> Result<(), JournalError> {
        self.check_order(&self.state(), stamp, records)?;
        // Memory is bounded: whoever appends faster than the disk takes it waits for the disk here.
        if self.state().pending_bytes > limits::PENDING_BYTES_MAX {
            self.flush()?;
        }
        while !records.is_empty() {
            let count = self.fitting(stamp, records)?;
            if count == 0 {
                self.roll(appending)?;
                continue;
            }
            let (now, rest) = records.split_at(piece(&records[..count]));
            let later = controls.split_off(now.iter().filter(is_control).count());
            let mut state = self.state();
            let pushed = state.push(stamp, now, &mut controls);
            if rest.is_empty() {
                state.set_source_position(stamp.source_position);
            }
            drop(state);
            pushed.map_err(|error| self.poison(error))?;
            (records, controls) = (rest, later);
            self.write_behind()?;
        }
        Ok(())
    }

    fn check_order(
        &self,
        state: &State,
        stamp: &Stamp,
        records: &[Record],
    ) -> Result<(), JournalError> {
        state.check_poison()?;
        let tail = state.tail();
        let mut expected = tail.lsn;
        for record in records {
            expected = expected.next();
            if record.header.lsn != expected {
                return Err(JournalError::NotNext { expected, found: record.header.lsn });
            }
        }
        let over = stamp.epoch.number < tail.epoch.number
            || (stamp.epoch.number == tail.epoch.number && !stamp.epoch.is(&tail.epoch));
        if over {
            return Err(JournalError::Fenced { offered: stamp.epoch, current: tail.epoch });
        }
        Ok(())
    }

    /// How many of the records go into the last segment now. None when all of them would fit into a
    /// new one: an append is split only where it must be, so that it fails as a whole or not at
    /// all.
    fn fitting(&self, stamp: &Stamp, records: &[Record]) -> Result<usize, JournalError> {
        let here = self.state().fitting(records, stamp, self.segment_bytes);
        if here == records.len() {
            return Ok(here);
        }
        let empty = Cursor::new(
            self.sector_bytes,
            self.sector_bytes.into(),
            IndexSize::empty(self.cover.is_sealed()),
        );
        match count_fitting(empty, records, Producers::Other, self.segment_bytes) {
            0 => Err(JournalError::TooLong {
                lsn: records[0].header.lsn,
                segment_bytes: self.segment_bytes,
            }),
            all if all == records.len() => Ok(0),
            _ => Ok(here),
        }
    }

    /// Calls the listeners with the durable position.
    pub(super) fn tell_listeners(&self) {
        let listeners = lock(&self.listeners);
        if !listeners.is_empty() {
            // Read under the listeners' lock, so that no one is told an older position after a
            // newer one.
            let durable = self.durable();
            listeners.iter().for_each(|listener| listener(durable));
        }
    }
}

/// How many of the records are taken before what is complete may be written: a large append goes to
/// the disk while it is being copied.
fn piece(records: &[Record]) -> usize {
    let mut bytes = 0;
    let whole = records.iter().position(|record| {
        bytes += record.payload.len() as u64;
        bytes > limits::HAND_OVER_BYTES
    });
    whole.map_or(records.len(), |count| count.max(1))
}

fn is_control(record: &&Record) -> bool {
    record.header.kind == RecordKind::Control
}
