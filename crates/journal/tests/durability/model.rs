//! A workload on a simulated medium, the promises that it was made, and the check that they hold.

use landfall_blockdev::sim::{Cut, SimMedium};
use landfall_journal::{JournalError, Log, LogConfig, Position, SeededBug, Stamp};
use landfall_testkit::Rng;
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Marker, MarkerKind, Record,
    ReplicaId,
};
use std::collections::HashMap;

pub(crate) const SECTOR_BYTES: u32 = 512;
/// Room for a few frames only, so that short workloads roll and trim.
pub(crate) const SEGMENT_SECTORS: u64 = 16;

/// What a workload does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// So many records in one append.
    Append(u64),
    Flush,
    /// Helpers have written every other frame, the newest first.
    WriteSome,
    /// A segment file is filled before it is needed.
    Prepare,
    /// Up to this many records behind the tail.
    TrimBefore(u64),
    /// The process dies and opens the log again; no power cut.
    Reopen,
    /// A clean end, then as `Reopen`.
    Close,
}

/// What the log has promised.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    Created,
    /// Durable up to here: by a flush, or by what an opening reported.
    Durable(Position),
    /// A trim up to here was asked for: what is at or below it may go.
    MayTrim(Lsn),
    /// A trim has finished: the log begins there or later.
    Trimmed(Lsn),
}

/// Everything that was ever appended, by the chain after it: equal chains are equal histories.
#[derive(Default)]
pub(crate) struct History {
    /// The LSN, and who made the record.
    records: HashMap<Chain, (Lsn, Incarnation)>,
}

pub(crate) struct World {
    pub(crate) medium: SimMedium,
    pub(crate) promises: Vec<Promise>,
    pub(crate) history: History,
    pub(crate) bug: Option<SeededBug>,
    log: Option<Log>,
    rng: Rng,
    incarnation: u64,
    adopted: usize,
}

pub(crate) fn epoch() -> Epoch {
    Epoch { number: 3, id: EpochId::new(0x33), parent: Some(EpochId::new(0x22)) }
}

pub(crate) fn config(log: u8) -> LogConfig {
    LogConfig {
        log: LogId::from_bytes([log; 16]),
        replica: ReplicaId::from_bytes([9; 16]),
        epoch: epoch(),
        base: Lsn::new(100),
        base_chain: Chain::from_bytes([5; 16]),
        segment_bytes: SEGMENT_SECTORS * u64::from(SECTOR_BYTES),
    }
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<SeededBug>) -> Self {
        Self {
            medium: SimMedium::new(SECTOR_BYTES),
            promises: Vec::new(),
            history: History::default(),
            bug,
            log: None,
            rng: Rng::new(seed),
            incarnation: 1,
            adopted: 0,
        }
    }

    /// With everything sealed.
    pub(crate) fn sealed(seed: u64, bug: Option<SeededBug>) -> Self {
        Self { medium: SimMedium::sealed(SECTOR_BYTES), ..Self::new(seed, bug) }
    }

    /// On a disk with other sectors.
    pub(crate) fn with_sectors(seed: u64, sector_bytes: u32) -> Self {
        Self { medium: SimMedium::new(sector_bytes), ..Self::new(seed, None) }
    }

    /// Takes over what another world knows, and the promises that it was made up to a cut.
    pub(crate) fn adopt(&mut self, other: &Self, promises: usize) {
        self.promises = other.promises[..promises].to_vec();
        self.adopted = promises;
        self.history.records.clone_from(&other.history.records);
        self.incarnation = other.incarnation + 1000;
    }

    /// How many promises were taken over.
    pub(crate) fn promises_adopted(&self) -> usize {
        self.adopted
    }

    fn promise(&mut self, promise: Promise) {
        self.promises.push(promise);
        self.medium.promise();
    }

    pub(crate) fn create(&mut self) -> Result<(), JournalError> {
        let sector_bytes = u64::from(self.medium.root().sector_bytes());
        let sized = LogConfig { segment_bytes: SEGMENT_SECTORS * sector_bytes, ..config(1) };
        // Noted before: a creation that fails at its last step has made a log.
        self.history.records.insert(config(1).base_chain, (config(1).base, Incarnation::NONE));
        let log = Log::create_with_bug(self.medium.root(), sized, self.bug)?;
        self.promise(Promise::Created);
        self.log = Some(log);
        Ok(())
    }

    pub(crate) fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    /// Opens what is on the medium, with the checks that every opening has to pass.
    pub(crate) fn reopen(&mut self) -> Result<(), JournalError> {
        self.log = None;
        let (log, report) = Log::open_with_bug(self.medium.root(), self.bug)?;
        self.incarnation += 1;
        assert_eq!(log.durable(), report.position);
        self.promise(Promise::Durable(report.position));
        self.log = Some(log);
        Ok(())
    }

    pub(crate) fn step(&mut self, step: Step) -> Result<(), JournalError> {
        match step {
            Step::Append(count) => self.append(count)?,
            Step::Flush => {
                let durable = self.log().flush()?;
                assert_eq!(durable, self.log().tail());
                self.promise(Promise::Durable(durable));
            }
            Step::WriteSome => self.log().write_every_other_frame()?,
            Step::Prepare => drop(self.log().prepare_segment()?),
            Step::TrimBefore(count) => {
                let through = Lsn::new(self.log().tail().lsn.get().saturating_sub(count));
                self.promise(Promise::MayTrim(through));
                let base = self.log().trim(through)?;
                self.promise(Promise::Trimmed(base));
            }
            Step::Reopen => self.reopen()?,
            Step::Close => {
                let durable = self.log().close()?;
                self.promise(Promise::Durable(durable));
                self.reopen()?;
            }
        }
        Ok(())
    }

    fn append(&mut self, count: u64) -> Result<(), JournalError> {
        let tail = self.log().tail();
        let mut chain = tail.chain;
        let incarnation = Incarnation::new(self.incarnation);
        let mut records = Vec::new();
        for number in 1..=count {
            let record = self.record(tail.lsn.plus(number));
            chain = record.chain(chain);
            // Noted before: a failed append may have taken a prefix.
            self.history.records.insert(chain, (record.header.lsn, incarnation));
            records.push(record);
        }
        // The producer's own position equals the LSN: so the check knows what it must be anywhere.
        let source_position = tail.lsn.plus(count).get();
        self.log().append(Stamp { epoch: epoch(), incarnation, source_position }, &records)?;
        assert_eq!(self.log().tail().chain, chain);
        Ok(())
    }

    fn record(&mut self, lsn: Lsn) -> Record {
        let disk = DiskIndex(u16::try_from(self.rng.below(3)).expect("small"));
        let offset = self.rng.below(1000) * 512;
        match self.rng.below(8) {
            0 => Record::zero(lsn, disk, offset, 1 << 30),
            1 => Record::discard(lsn, disk, offset, 512),
            2 => {
                let marker = Marker {
                    kind: MarkerKind::CrashConsistent,
                    time_unix_ns: self.rng.next_u64(),
                    name: None,
                    group: None,
                };
                Record::control(lsn, &Control::Marker(marker))
            }
            _ => {
                let mut data = vec![0; 1 + usize::try_from(self.rng.below(700)).expect("small")];
                self.rng.fill(&mut data);
                Record::write(lsn, disk, offset, data.into())
            }
        }
    }

    /// Opens the medium of a cut and checks all promises made before it. Returns the open log;
    /// `None` where the log was never promised and is not there.
    pub(crate) fn check_cut(&self, cut: &Cut) -> Option<Log> {
        self.check(&cut.medium, cut.promises, &format!("step {} mask {}", cut.step, cut.mask))
    }

    /// As [`World::check_cut`], for any medium.
    pub(crate) fn check(&self, medium: &SimMedium, promises: usize, place: &str) -> Option<Log> {
        let promises = &self.promises[..promises];
        let log = match Log::open_with_bug(medium.root(), self.bug) {
            Ok((log, _)) => log,
            Err(JournalError::NotALog) if promises.is_empty() => return None,
            Err(error) => panic!("{place}: can't be opened: {error}"),
        };
        self.check_open(&log, promises, place);
        Some(log)
    }

    pub(crate) fn check_open(&self, log: &Log, promises: &[Promise], place: &str) {
        let (base, _) = log.base();
        let tail = log.tail();
        for promise in promises {
            match promise {
                Promise::Durable(position) if position.lsn >= base => {
                    let found = log.position_at(position.lsn).expect("readable");
                    assert_eq!(found, Some(*position), "{place}: durable, but lost");
                }
                Promise::Trimmed(lsn) => assert!(base >= *lsn, "{place}: a trim was undone"),
                Promise::Created | Promise::Durable(_) | Promise::MayTrim(_) => {}
            }
        }
        let may_trim = promises.iter().filter_map(|promise| match promise {
            Promise::MayTrim(lsn) => Some(*lsn),
            _ => None,
        });
        let first = config(1).base;
        assert!(base >= first, "{place}");
        assert!(base <= may_trim.fold(first, Lsn::max), "{place}: more was trimmed than asked for");
        self.check_content(log, place);
        let (lsn, incarnation) = self.history.records[&tail.chain];
        assert_eq!((lsn, incarnation), (tail.lsn, tail.incarnation), "{place}: another history");
        assert!(
            tail.source_position <= tail.lsn.get(),
            "{place}: the producer would leave some out"
        );
    }

    /// Every record from base to tail can be read, and their chain leads to one that was appended:
    /// so they are exactly what was appended (promises P3, P4).
    fn check_content(&self, log: &Log, place: &str) {
        let (base, mut chain) = log.base();
        let tail = log.tail();
        let entries = log.entries(base, tail.lsn).expect("all entries");
        assert_eq!(entries.len() as u64, tail.lsn.records_since(base), "{place}");
        let mut controls = Vec::new();
        for entry in &entries {
            let payload = log.read(entry).unwrap_or_else(|error| panic!("{place}: {error}"));
            let record = Record { header: entry.header, payload };
            record.verify().expect("read checks this");
            chain = record.chain(chain);
            let known = self.history.records.get(&chain).map(|known| known.0);
            assert_eq!(known, Some(record.header.lsn), "{place}: a record that was never appended");
            if record.header.kind == landfall_types::RecordKind::Control {
                controls.push((record.header.lsn, Control::decode(&record.payload).expect("ours")));
            }
        }
        assert_eq!(chain, tail.chain, "{place}");
        assert_eq!(log.controls(), controls, "{place}");
        let mut from = base.next();
        while let Some(batch) = log.batch(from, 3000).expect("a batch") {
            assert_eq!(batch.records[0].header.lsn, from, "{place}");
            assert_eq!(
                Some(batch.chain_before),
                log.position_at(from.prev()).expect("readable").map(|p| p.chain)
            );
            let last = batch.records[batch.records.len() - 1].header.lsn;
            let position = log.position_at(last).expect("readable").expect("kept");
            assert_eq!(position.incarnation, batch.stamp.incarnation, "{place}");
            assert_eq!(position.source_position, batch.stamp.source_position, "{place}");
            from = last.next();
        }
        assert_eq!(from, log.durable().lsn.next(), "{place}: batches end where the log does");
    }
}

/// A random workload.
pub(crate) fn random_steps(rng: &mut Rng, count: u64) -> Vec<Step> {
    (0..count)
        .map(|_| match rng.below(14) {
            0..=4 => Step::Append(1 + rng.below(4)),
            12 => Step::WriteSome,
            13 => Step::Prepare,
            5..=7 => Step::Flush,
            8 => Step::TrimBefore(rng.below(12)),
            9 => Step::Append(8 + rng.below(20)),
            10 => Step::Reopen,
            _ => Step::Close,
        })
        .collect()
}
