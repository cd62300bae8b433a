//! The master target: one log, one lineage, one instance that has authority.

use crate::hop::Sink;
use crate::log::SimLog;
use crate::world::Bug;
use landfall_repl::{
    Admission, Batch, Durable, ReceiverPosition, Refusal, SourceIdentity, Standing, admit,
};
use landfall_testkit::Rng;
use landfall_types::{Chain, Incarnation, InstanceId, Lineage, Lsn};

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) lineage: Lineage,
    pub(crate) instance: InstanceId,
    pub(crate) log: SimLog,
    session: u64,
    bug: Bug,
    /// Of the seeded bug "resume from received": survives a crash though the records do not.
    received: (Lsn, Chain),
}

impl Target {
    pub(crate) fn new(lineage: Lineage, instance: InstanceId, bug: Bug) -> Self {
        let log = SimLog::new(Lsn::ZERO, Chain::ROOT, Incarnation::NONE, vec![]);
        Self { lineage, instance, log, session: 0, bug, received: (Lsn::ZERO, Chain::ROOT) }
    }

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.log.crash(rng);
        self.session += 1;
    }

    fn check(&self, session: u64) -> Result<(), Refusal> {
        if session == self.session { Ok(()) } else { Err(Refusal::Superseded) }
    }
}

impl Sink for Target {
    fn open(
        &mut self,
        _: u64,
        identity: &SourceIdentity,
    ) -> Option<Result<(u64, ReceiverPosition), Refusal>> {
        let tail = self.log.tail();
        let standing = Standing { lineage: &self.lineage, tail, instance: Some(self.instance) };
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
        let (mut durable, mut chain) = (self.log.tail(), self.log.tail_chain());
        if self.bug == Bug::NoGapCheck {
            (durable, chain) = self.received;
        }
        let position = ReceiverPosition {
            lineage,
            incarnation: self.log.incarnation(),
            durable,
            chain,
            source_position: 0,
            durable_at_target: durable,
            image_copy: None,
            open_windows: self.log.windows(),
        };
        Some(Ok((self.session, position)))
    }

    fn append(&mut self, session: u64, batch: &Batch) -> Result<(), Refusal> {
        self.check(session)?;
        match self.bug {
            Bug::NoGapCheck | Bug::EpochIgnored => {
                for record in &batch.records {
                    self.log.push(record.clone(), batch.epoch, batch.incarnation);
                }
                self.received = (batch.last(), batch.chain_after());
                Ok(())
            }
            _ => self.log.append(batch),
        }
    }

    fn flush(&mut self, session: u64) -> Result<Durable, Refusal> {
        self.check(session)?;
        self.log.flush();
        self.durable(session)
    }

    fn durable(&mut self, session: u64) -> Result<Durable, Refusal> {
        self.check(session)?;
        let here = match self.bug {
            Bug::AckOnReceive => self.log.tail(),
            Bug::NoGapCheck => self.received.0,
            _ => self.log.durable(),
        };
        Ok(Durable { here, at_target: here })
    }

    fn gone(&mut self, _: u64) {}
}
