//! Segments that are full: their record tables stay on disk, and are read when someone asks.

use crate::cover::Cover;
use crate::format::segment::SegmentHeader;
use crate::log::Log;
use crate::log::segment::Segment;
use crate::log::state::State;
use crate::recovery::{load_index, scan};
use crate::table::Table;
use crate::{JournalError, Position};
use landfall_blockdev::File;
use landfall_types::{Control, Lsn};
use std::collections::VecDeque;
use std::sync::Arc;

/// A kept segment that takes no more records.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) header: SegmentHeader,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    /// The position after its last record: where the next segment begins.
    pub(crate) tail: Position,
    pub(crate) controls: Arc<[(Lsn, Control)]>,
    /// Where its frames end, bytes from its start.
    pub(crate) end: u64,
}

impl Sealed {
    /// What stays in memory of a segment, and its table.
    pub(crate) fn of(segment: Segment) -> (Self, Table) {
        let Segment { header, name, file, table, end, .. } = segment;
        let (tail, controls) = (table.tail(), table.controls().into());
        (Self { header, name, file, tail, controls, end }, table)
    }

    pub(crate) const fn base(&self) -> &Position {
        &self.header.base
    }

    /// The table from the index, or, where that is lost, from the frames. Either must lead to where
    /// the next segment begins.
    fn load(&self, cover: &Cover) -> Result<Table, JournalError> {
        let fail = || JournalError::device("read a sealed segment");
        let joins =
            |table: &Table| table.tail_lsn() == self.tail.lsn && table.chain() == self.tail.chain;
        let indexed = load_index(&*self.file, cover, &self.header).map_err(fail())?;
        if let Some((table, _)) = indexed.filter(|(table, _)| joins(table)) {
            return Ok(table);
        }
        let mut window = scan::Window::new(&*self.file, cover).map_err(fail())?;
        let found = scan::frames(&mut window, &self.header, self.tail.lsn).map_err(fail())?;
        let reached = found.tail(&self.header).0;
        match scan::table(&mut window, &self.header, &found).map_err(fail())? {
            Ok(table) if joins(&table) => Ok(table),
            Ok(_) => Err(JournalError::Corrupt {
                lsn: reached.next(),
                what: "neither index nor frames of its segment lead to the next one",
            }),
            Err(lsn) => Err(JournalError::Corrupt { lsn, what: "a control record can't be read" }),
        }
    }
}

/// Tables of sealed segments that were read last, within a budget.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// The one that was asked for last stands last.
    kept: VecDeque<(u64, Arc<Table>)>,
    bytes: usize,
}

impl Tables {
    pub(crate) fn get(&mut self, sequence: u64) -> Option<Arc<Table>> {
        let at = self.kept.iter().position(|(kept, _)| *kept == sequence)?;
        let found = self.kept.remove(at)?;
        let table = Arc::clone(&found.1);
        self.kept.push_back(found);
        Some(table)
    }

    /// The oldest go until all fit into `budget` bytes; the new one always stays.
    pub(crate) fn put(&mut self, sequence: u64, table: Arc<Table>, budget: usize) {
        self.retain(|kept| kept != sequence);
        self.bytes += table.memory_bytes();
        self.kept.push_back((sequence, table));
        while self.bytes > budget && self.kept.len() > 1 {
            if let Some((_, gone)) = self.kept.pop_front() {
                self.bytes -= gone.memory_bytes();
            }
        }
    }

    pub(crate) fn retain(&mut self, wanted: impl Fn(u64) -> bool) {
        self.kept.retain(|(sequence, _)| wanted(*sequence));
        self.bytes = self.kept.iter().map(|(_, table)| table.memory_bytes()).sum();
    }
}

impl Log {
    /// Looks into the table of the segment that holds `lsn`, or that the log begins with at it;
    /// `None` when there is none. Reads it from the disk where it is not in memory.
    pub(super) fn with_table<T>(
        &self,
        lsn: Lsn,
        look: impl FnOnce(&Table, u64) -> T,
    ) -> Result<Option<T>, JournalError> {
        let mut state = self.state();
        if lsn > state.tail().lsn {
            return Ok(None);
        }
        let Some(sealed) = state.sealed_of(lsn).cloned() else {
            let last = &state.last;
            let here = last.table.base().lsn < lsn
                || (state.sealed.is_empty() && last.table.base().lsn == lsn);
            return Ok(here.then(|| look(&last.table, last.header.sequence)));
        };
        let sequence = sealed.header.sequence;
        if let Some(table) = state.tables.get(sequence) {
            drop(state);
            return Ok(Some(look(&table, sequence)));
        }
        drop(state);
        let table = match sealed.load(&self.cover) {
            Ok(table) => Arc::new(table),
            Err(error) => return Err(self.unless_trimmed(lsn, sequence, error)),
        };
        let mut state = self.state();
        if state.file(sequence).is_some() {
            state.tables.put(sequence, Arc::clone(&table), crate::limits::TABLES_BYTES_MAX);
        }
        drop(state);
        Ok(Some(look(&table, sequence)))
    }

    /// What was read of a segment that was trimmed meanwhile, its file perhaps used again, is no
    /// sign of damage.
    fn unless_trimmed(&self, lsn: Lsn, sequence: u64, error: JournalError) -> JournalError {
        let state = self.state();
        match state.file(sequence) {
            Some(_) => error,
            None => JournalError::Trimmed { lsn, base: state.base().lsn },
        }
    }
}

impl State {
    /// The sealed segment that holds `lsn`, or that the log begins with at it.
    fn sealed_of(&self, lsn: Lsn) -> Option<&Sealed> {
        let number = self.sealed.partition_point(|segment| segment.tail.lsn < lsn);
        self.sealed.get(number).filter(|segment| {
            segment.base().lsn < lsn || (number == 0 && segment.base().lsn == lsn)
        })
    }
}
