//! How the content of a log stands on its medium: as it is, or sealed with the key of its replica.
//! Everything else of this crate knows only that what is stored may be longer than what it is.

use crate::JournalError;
use crate::format::frame::FrameHeader;
use crate::format::index::IndexPlace;
use crate::format::segment::SegmentHeader;
use crate::recovery::scan::record_intact;
use bytes::Bytes;
use landfall_blockdev::Dir;
use landfall_crypt::{
    Batch, DataKey, KEY_CHECK_BYTES, SEAL_BYTES, SEAL_HEAD_BYTES, SEAL_TAG_BYTES,
};
use landfall_types::{LogId, RecordHeader};
use std::borrow::Cow;

/// What a superblock says of the key: zeroes where the log is not sealed.
pub(crate) type KeyCheck = [u8; KEY_CHECK_BYTES];

/// Plain, or sealed with this key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cover(Option<DataKey>);

/// One use of a segment file by one log. It is part of the context of everything that is sealed
/// there: bytes of another log, another segment or an earlier use of the file don't open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(crate) log: LogId,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
}

impl Use {
    pub(crate) const fn of(header: &SegmentHeader) -> Self {
        Self { log: header.log, segment: header.sequence, salt: header.salt }
    }

    fn context(&self, what: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut context = Vec::with_capacity(256);
        context.extend_from_slice(what);
        context.extend_from_slice(self.log.as_bytes());
        context.extend_from_slice(&self.segment.to_le_bytes());
        context.extend_from_slice(&self.salt.to_le_bytes());
        parts.iter().for_each(|part| context.extend_from_slice(part));
        context
    }

    fn of_record(&self, header: &RecordHeader) -> Vec<u8> {
        self.context(b"record", &[&header.encode()])
    }

    fn of_table(&self, header: &FrameHeader) -> Vec<u8> {
        self.context(b"table", &[&header.sealed_part()])
    }

    /// `part` is `records` or `controls`, `head` what of the index's header is known before the
    /// parts are sealed.
    fn of_index(&self, part: &[u8], head: &[u8]) -> Vec<u8> {
        self.context(b"index", &[part, head])
    }
}

/// Bytes that a payload takes; nothing where there is none.
pub(crate) const fn stored_len(header: &RecordHeader, sealed: bool) -> u64 {
    match header.payload_len() {
        0 => 0,
        length => length + extra(sealed) as u64,
    }
}

/// By how much a part grows.
pub(crate) const fn extra(sealed: bool) -> usize {
    if sealed { SEAL_BYTES } else { 0 }
}

impl Cover {
    /// What the logs of a directory are to be, and have to be.
    pub(crate) fn of(dir: &dyn Dir) -> Self {
        Self(dir.data_key())
    }

    pub(crate) const fn is_sealed(&self) -> bool {
        self.0.is_some()
    }

    /// What the superblock of such a log says.
    pub(crate) fn check(&self, log: LogId) -> KeyCheck {
        self.0.as_ref().map_or([0; KEY_CHECK_BYTES], |key| key.check(log.as_bytes()))
    }

    /// Whether a log with this superblock can be read. Before anything else is looked at: with
    /// another key all records look torn, and would be cut off.
    pub(crate) fn agree(&self, log: LogId, check: &KeyCheck) -> Result<(), JournalError> {
        let sealed = check != &[0; KEY_CHECK_BYTES];
        match (sealed, self.is_sealed()) {
            (true, false) => Err(JournalError::KeyMissing),
            // Put there by someone who has no key.
            (false, true) => Err(JournalError::NotSealed),
            _ if *check != self.check(log) => Err(JournalError::WrongKey),
            _ => Ok(()),
        }
    }

    pub(crate) fn stored_len(&self, header: &RecordHeader) -> u64 {
        stored_len(header, self.is_sealed())
    }

    /// Begins to seal a frame or an index; `None` for a plain log.
    pub(crate) fn batch(&self) -> Result<Option<Batch>, JournalError> {
        let batch = self.0.as_ref().map(DataKey::batch).transpose();
        batch.map_err(|_| JournalError::NoRandomness)
    }

    /// A payload from what stands on the medium; `None` where that is not what was written.
    pub(crate) fn content<'a>(
        &self,
        place: &Use,
        header: &RecordHeader,
        stored: &'a [u8],
    ) -> Option<Cow<'a, [u8]>> {
        let content = match &self.0 {
            Some(key) if !stored.is_empty() => {
                let mut sealed = stored.to_vec();
                key.open(&place.of_record(header), &mut sealed).ok()?;
                sealed.truncate(sealed.len() - SEAL_TAG_BYTES);
                sealed.drain(..SEAL_HEAD_BYTES);
                Cow::Owned(sealed)
            }
            _ => Cow::Borrowed(stored),
        };
        record_intact(header, &content).then_some(content)
    }

    /// As [`Cover::content`], without a copy where there is none to make.
    pub(crate) fn payload(
        &self,
        place: &Use,
        header: &RecordHeader,
        stored: Bytes,
    ) -> Option<Bytes> {
        let content = match &self.0 {
            Some(key) if !stored.is_empty() => {
                let mut sealed = Vec::from(stored);
                let length = key.open(&place.of_record(header), &mut sealed).ok()?.len();
                Bytes::from(sealed).slice(SEAL_HEAD_BYTES..SEAL_HEAD_BYTES + length)
            }
            _ => stored,
        };
        record_intact(header, &content).then_some(content)
    }

    /// The table of a frame; `None` where it is not what was written with this header.
    pub(crate) fn table<'a>(
        &self,
        log: LogId,
        header: &FrameHeader,
        stored: &'a [u8],
    ) -> Option<Cow<'a, [u8]>> {
        let place = Use { log, segment: header.segment, salt: header.salt };
        self.part(header.sealed, stored, || place.of_table(header))
    }

    /// A part of an index.
    pub(crate) fn index_part<'a>(
        &self,
        (log, place): (LogId, IndexPlace),
        (part, head): (&[u8], &[u8]),
        sealed: bool,
        stored: &'a [u8],
    ) -> Option<Cow<'a, [u8]>> {
        let place = Use { log, segment: place.segment, salt: place.salt };
        self.part(sealed, stored, || place.of_index(part, head))
    }

    fn part<'a>(
        &self,
        sealed: bool,
        stored: &'a [u8],
        context: impl FnOnce() -> Vec<u8>,
    ) -> Option<Cow<'a, [u8]>> {
        if sealed != self.is_sealed() {
            return None;
        }
        let Some(key) = &self.0 else { return Some(Cow::Borrowed(stored)) };
        let mut bytes = stored.to_vec();
        key.open(&context(), &mut bytes).ok()?;
        bytes.truncate(bytes.len() - SEAL_TAG_BYTES);
        bytes.drain(..SEAL_HEAD_BYTES);
        Some(Cow::Owned(bytes))
    }
}

/// Writes payload and table of a frame, or the parts of an index, into their places.
pub(crate) trait Covering {
    /// Puts a payload into a place of its stored length.
    fn put_record(&mut self, place: &Use, header: &RecordHeader, payload: &[u8], out: &mut [u8]);
    /// Covers a table that stands in `out` behind the room for what covering puts before it.
    fn cover_table(&mut self, log: LogId, header: &FrameHeader, out: &mut [u8]);
    /// Covers a part of an index in the same way.
    fn cover_index(
        &mut self,
        place: (LogId, IndexPlace),
        part_and_head: (&[u8], &[u8]),
        out: &mut [u8],
    );
    /// Bytes that covering puts before what it covers.
    fn head(&self) -> usize;
    /// By how much it grows.
    fn extra(&self) -> usize;
}

impl Covering for Option<Batch> {
    fn put_record(&mut self, place: &Use, header: &RecordHeader, payload: &[u8], out: &mut [u8]) {
        match self {
            _ if payload.is_empty() => {}
            None => out.copy_from_slice(payload),
            Some(batch) => {
                out[SEAL_HEAD_BYTES..SEAL_HEAD_BYTES + payload.len()].copy_from_slice(payload);
                batch.seal(&place.of_record(header), out);
            }
        }
    }

    fn cover_table(&mut self, log: LogId, header: &FrameHeader, out: &mut [u8]) {
        if let Some(batch) = self {
            let place = Use { log, segment: header.segment, salt: header.salt };
            batch.seal(&place.of_table(header), out);
        }
    }

    fn cover_index(
        &mut self,
        (log, place): (LogId, IndexPlace),
        (part, head): (&[u8], &[u8]),
        out: &mut [u8],
    ) {
        if let Some(batch) = self {
            let place = Use { log, segment: place.segment, salt: place.salt };
            batch.seal(&place.of_index(part, head), out);
        }
    }

    fn head(&self) -> usize {
        if self.is_some() { SEAL_HEAD_BYTES } else { 0 }
    }

    fn extra(&self) -> usize {
        extra(self.is_some())
    }
}
