//! The master target: an image, one log, one lineage, one instance that has authority.

use crate::bug::Bug;
use crate::hop::Sink;
use crate::log::{SimLog, stamp_of};
use crate::truth::{BLOCKS, Blocks};
use landfall_repl::{
    Admission, Batch, Durable, ReceiverPosition, Refusal, SourceIdentity, Standing, admit,
};
use landfall_testkit::Rng;
use landfall_types::{Chain, InstanceId, Lineage, Lsn};

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) lineage: Lineage,
    pub(crate) instance: InstanceId,
    /// What lies under the log.
    pub(crate) image: Blocks,
    /// What that image holds is not known: no point before a window has closed.
    pub(crate) unknown: bool,
    pub(crate) log: SimLog,
    /// No room: whoever brings records waits.
    pub(crate) full: bool,
    /// The disk says no to records, for once.
    pub(crate) refuses: bool,
    /// The next flush fails; what was not flushed may be there or not (fault F3).
    pub(crate) fail_flush: Option<u64>,
    session: u64,
    bug: Bug,
    /// Of the seeded bug "resume from received": survives a crash though the records do not.
    received: (Lsn, Chain),
}

impl Target {
    pub(crate) fn new(lineage: Lineage, instance: InstanceId, bug: Bug) -> Self {
        Self {
            lineage,
            instance,
            image: [0; BLOCKS],
            unknown: false,
            log: SimLog::after(Lsn::ZERO, Chain::ROOT),
            full: false,
            refuses: false,
            fail_flush: None,
            session: 0,
            bug,
            received: (Lsn::ZERO, Chain::ROOT),
        }
    }

    /// The machine at home becomes the target: its disks hold what they held when it died, and the
    /// log begins where the recovery site's branch did (design section 14.8).
    pub(crate) fn home(former: &Self, image: Blocks, at: (Lsn, Chain)) -> Self {
        Self {
            image,
            unknown: former.bug != Bug::HomeTakenAsItIs,
            log: SimLog::after(at.0, at.1),
            session: former.session + 1,
            ..Self::new(former.lineage.clone(), former.instance, former.bug)
        }
    }

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.log.crash(rng);
        self.session += 1;
    }

    fn check(&self, session: u64) -> Result<(), Refusal> {
        if session == self.session { Ok(()) } else { Err(Refusal::Superseded) }
    }

    /// The position that it names; before its end for the sake of a bug.
    fn position(&self) -> (Lsn, Chain) {
        let end = (self.log.tail(), self.log.tail_chain());
        match self.bug {
            Bug::NoGapCheck => self.received,
            Bug::DuplicatesApplied => {
                let before = Lsn::new(self.log.tail().get().saturating_sub(3));
                self.log.chain_at(before).map_or(end, |chain| (before, chain))
            }
            _ => end,
        }
    }
}

impl Sink for Target {
    fn open(
        &mut self,
        _: u64,
        identity: &SourceIdentity,
    ) -> Option<Result<(u64, ReceiverPosition), Refusal>> {
        let tail = self.log.tail();
        let instance = (self.bug != Bug::CloneAdmitted).then_some(self.instance);
        let standing = Standing { lineage: &self.lineage, tail, instance };
        let mut lineage = self.lineage.clone();
        match admit(identity, &standing) {
            _ if self.bug == Bug::EpochIgnored => lineage = identity.lineage.clone(),
            Ok(Admission::Same) => {}
            Ok(Admission::Newer) => {
                let reason = "a new epoch comes by order, not by a sender".into();
                return Some(Err(Refusal::Unavailable { reason }));
            }
            Err(refusal) => return Some(Err(refusal)),
        }
        self.log.flush();
        self.session += 1;
        let (durable, chain) = self.position();
        let position = ReceiverPosition {
            lineage,
            incarnation: self.log.incarnation(),
            durable,
            chain,
            source_position: self.log.ring(),
            durable_at_target: durable,
            image_copy: None,
            open_windows: self.log.windows(),
            rotten: vec![],
        };
        Some(Ok((self.session, position)))
    }

    fn append(&mut self, session: u64, batch: &Batch) -> Result<(), Refusal> {
        self.check(session)?;
        if std::mem::take(&mut self.refuses) {
            return Err(Refusal::Unavailable { reason: "no space".into() });
        }
        match self.bug {
            Bug::NoGapCheck | Bug::EpochIgnored | Bug::DuplicatesApplied => {
                for record in &batch.records {
                    self.log.push(record.clone(), stamp_of(batch));
                }
                self.received = (batch.last(), batch.chain_after());
                Ok(())
            }
            _ => self.log.append(batch),
        }
    }

    fn flush(&mut self, session: u64) -> Result<Durable, Refusal> {
        self.check(session)?;
        if let Some(seed) = self.fail_flush.take() {
            let promised = self.log.tail();
            self.crash(&mut Rng::new(seed));
            if self.bug == Bug::FlushErrorForgotten {
                self.session -= 1;
                return Ok(Durable { here: promised, at_target: promised });
            }
            return Err(Refusal::Unavailable { reason: "a flush failed".into() });
        }
        self.log.flush();
        self.durable(session)
    }

    fn durable(&mut self, session: u64) -> Result<Durable, Refusal> {
        self.check(session)?;
        let here = match self.bug {
            Bug::AckOnReceive => self.log.tail(),
            Bug::NoGapCheck | Bug::DuplicatesApplied => self.received.0,
            _ => self.log.durable(),
        };
        Ok(Durable { here, at_target: here })
    }

    fn gone(&mut self, _: u64) {}

    fn stalled(&self) -> bool {
        self.full
    }
}
