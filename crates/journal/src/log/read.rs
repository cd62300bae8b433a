use crate::cover::Use;
use crate::log::Log;
use crate::log::state::State;
use crate::table::Table;
use crate::{Entry, JournalError, LogBatch, Stamp};
use bytes::Bytes;
use landfall_types::{Chain, HEADER_BYTES, Lsn, Record};
use std::sync::Arc;

/// Some frames that are read at once.
struct Span {
    entries: Vec<Entry>,
    stamp: Stamp,
    chain_before: Chain,
}

impl Log {
    pub(super) fn entries_between(
        &self,
        after: Lsn,
        through: Lsn,
    ) -> Result<Vec<Entry>, JournalError> {
        let (base, tail) = {
            let state = self.state();
            (state.base().lsn, state.tail().lsn)
        };
        if after < base {
            return Err(JournalError::Trimmed { lsn: after.next(), base });
        }
        if through > tail {
            return Err(JournalError::Beyond { lsn: through, tail });
        }
        let count = usize::try_from(through.records_since(after)).unwrap_or(0);
        let mut entries = Vec::with_capacity(count);
        let mut at = after;
        while at < through {
            let reached = self.with_table(at.next(), |table, sequence| {
                let (first, last) = (table.base().lsn, table.tail_lsn().min(through));
                let from = index(at.records_since(first));
                let to = index(last.records_since(first));
                entries.extend((from..to).map(|number| table.entry(sequence, number)));
                last
            })?;
            // Trimmed meanwhile.
            at = reached.ok_or(JournalError::Trimmed { lsn: at.next(), base: self.base().0 })?;
        }
        Ok(entries)
    }

    pub(super) fn read_payload(&self, entry: &Entry) -> Result<Bytes, JournalError> {
        let length = index(self.cover.stored_len(&entry.header));
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (bytes, place) = self.read_bytes(entry, length)?;
        let payload = self.cover.payload(&place, &entry.header, bytes);
        payload.ok_or_else(|| self.unreadable(entry))
    }

    /// Bytes of one segment as they are stored, from memory where they are not written yet.
    fn read_bytes(&self, entry: &Entry, length: usize) -> Result<(Bytes, Use), JournalError> {
        let (sequence, offset) = (entry.location.segment, u64::from(entry.location.offset));
        let state = self.state();
        let Some((file, header)) = state.segment(sequence) else {
            return Err(trimmed(entry, &state));
        };
        let (file, place) = (Arc::clone(file), Use::of(header));
        if let Some(bytes) = state.unwritten(sequence, offset, length) {
            return Ok((Bytes::copy_from_slice(bytes), place));
        }
        drop(state);
        let mut buf = vec![0; length];
        file.read_at(offset, &mut buf).map_err(JournalError::device("read a record"))?;
        Ok((Bytes::from(buf), place))
    }

    /// What was read is not what was written: rot, or the segment was trimmed meanwhile and its
    /// file used again.
    fn unreadable(&self, entry: &Entry) -> JournalError {
        let state = self.state();
        if state.file(entry.location.segment).is_none() {
            return trimmed(entry, &state);
        }
        JournalError::Corrupt { lsn: entry.header.lsn, what: "its payload is not what was written" }
    }

    pub(super) fn durable_batch(
        &self,
        from: Lsn,
        bytes_max: usize,
    ) -> Result<Option<LogBatch>, JournalError> {
        let Some(span) = self.span(from, bytes_max)? else { return Ok(None) };
        let mut records = Vec::with_capacity(span.entries.len());
        // Payloads of one frame lie one behind the other: one read each.
        for run in span.entries.chunk_by(|entry, next| self.adjoins(entry, next)) {
            let total: u64 = run.iter().map(|entry| self.cover.stored_len(&entry.header)).sum();
            let (mut bytes, place) = self.read_bytes(&run[0], index(total))?;
            for entry in run {
                let stored = bytes.split_to(index(self.cover.stored_len(&entry.header)));
                let payload = self.cover.payload(&place, &entry.header, stored);
                let payload = payload.ok_or_else(|| self.unreadable(entry))?;
                records.push(Record { header: entry.header, payload });
            }
        }
        let Span { stamp, chain_before, .. } = span;
        Ok(Some(LogBatch { stamp, chain_before, records }))
    }

    /// Whether the payload of `next` begins where the one of `entry` ends.
    fn adjoins(&self, entry: &Entry, next: &Entry) -> bool {
        entry.location.segment == next.location.segment
            && u64::from(entry.location.offset) + self.cover.stored_len(&entry.header)
                == u64::from(next.location.offset)
    }

    /// Which records a batch holds.
    fn span(&self, from: Lsn, bytes_max: usize) -> Result<Option<Span>, JournalError> {
        let (base, durable) = {
            let state = self.state();
            (state.base().lsn, state.durable.lsn)
        };
        if from <= base {
            return Err(JournalError::Trimmed { lsn: from, base });
        }
        if from > durable {
            return Ok(None);
        }
        let span = self.with_table(from, |table, sequence| {
            span_in(table, sequence, from, durable, bytes_max)
        })?;
        Ok(Some(span.ok_or(JournalError::Trimmed { lsn: from, base })?))
    }
}

/// Whole frames of one producer from `from` on.
fn span_in(table: &Table, sequence: u64, from: Lsn, durable: Lsn, bytes_max: usize) -> Span {
    let first = index(from.prev().records_since(table.base().lsn));
    let durable_count = index(durable.min(table.tail_lsn()).records_since(table.base().lsn));
    let mut frame = table.frame_of(first);
    let producer_number = table.frames()[frame].stamp;
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut source_position = 0;
    while let Some(slot) = table.frames().get(frame) {
        // Frames become durable as a whole.
        let end = table.frame_end(frame);
        if slot.stamp != producer_number || end > durable_count {
            break;
        }
        let start = first.max(slot.first as usize);
        let run: Vec<Entry> = (start..end).map(|n| table.entry(sequence, n)).collect();
        bytes += run.iter().map(|e| HEADER_BYTES + index(e.header.payload_len())).sum::<usize>();
        if !entries.is_empty() && bytes > bytes_max {
            break;
        }
        entries.extend(run);
        source_position = slot.source_position;
        frame += 1;
    }
    let producer = table.producers()[producer_number as usize];
    let stamp = Stamp { epoch: producer.epoch, incarnation: producer.incarnation, source_position };
    let before = table.position_at(from.prev()).map_or(table.base().chain, |p| p.chain);
    Span { entries, stamp, chain_before: before }
}

fn trimmed(entry: &Entry, state: &State) -> JournalError {
    JournalError::Trimmed { lsn: entry.header.lsn, base: state.base().lsn }
}

/// Counts and lengths of what is in memory, or is to be.
fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
