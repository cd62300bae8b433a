//! The process server: a spool, and the decisions of `landfall_repl::relay` at both of its ends.

use crate::bug::Bug;
use crate::hop::{Sink, Source};
use crate::log::{SimLog, Stamp, stamp_of};
use landfall_repl::{
    Batch, Downstream, Durable, ReceiverPosition, Refusal, RelayStanding, SourceIdentity,
    SpoolView, Upstream, admit_upstream, follow_target,
};
use landfall_testkit::Rng;
use landfall_types::{Chain, Epoch, InstanceId, Lsn};

#[derive(Debug)]
pub(crate) struct Relay {
    /// By order of the configuration server; durable.
    pub(crate) instance: InstanceId,
    /// Durable, beside the spool: survives its loss.
    fenced_by: Option<Epoch>,
    spool: Option<Spool>,
    asking: Option<Asking>,
    /// As whom the present downstream session was opened: who asks may be gone or another one when
    /// the target answers.
    announced: Option<SourceIdentity>,
    session: u64,
    /// Sessions below are over for this reason.
    ended: Option<(u64, Refusal)>,
    at_target: Lsn,
    /// Ask the downstream sender to connect anew.
    pub(crate) restart: bool,
    pub(crate) set_aside: u32,
    /// No room: whoever brings records waits (RQ-PS-6).
    pub(crate) full: bool,
    /// The disk says no to records, for once.
    pub(crate) refuses: bool,
    /// The next flush fails; what was not flushed may be there or not (fault F3).
    pub(crate) fail_flush: Option<u64>,
    bug: Bug,
    /// Of the seeded bug "skip after a lost spool": the position that upstream was last told.
    told: Option<(Lsn, Chain)>,
}

/// A connection whose sender waits for what the target says, and what that was.
type Asking = (u64, SourceIdentity, Option<Result<(), Refusal>>);

#[derive(Debug)]
struct Spool {
    identity: SourceIdentity,
    log: SimLog,
    delivered: Lsn,
}

impl Relay {
    pub(crate) fn new(instance: InstanceId, bug: Bug) -> Self {
        Self {
            instance,
            fenced_by: None,
            spool: None,
            asking: None,
            announced: None,
            session: 0,
            ended: None,
            at_target: Lsn::ZERO,
            restart: false,
            set_aside: 0,
            full: false,
            refuses: false,
            fail_flush: None,
            bug,
            told: None,
        }
    }

    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        if let Some(spool) = &mut self.spool {
            spool.log.crash(rng);
            spool.delivered = spool.log.base();
        }
        self.at_target = Lsn::ZERO;
        self.asking = None;
        self.session += 1;
    }

    pub(crate) fn lose_spool(&mut self, rng: &mut Rng) {
        self.crash(rng);
        self.spool = None;
    }

    /// Of the seeded bug "drops when full".
    pub(crate) fn make_room(&mut self) {
        if let Some(spool) = &mut self.spool {
            let some = spool.log.base().plus(2).min(spool.log.tail());
            spool.log.trim(some);
        }
    }

    /// Where the spool ends; `None` without one.
    pub(crate) fn end(&self) -> Option<(Lsn, Chain)> {
        self.spool.as_ref().map(|spool| (spool.log.tail(), spool.log.tail_chain()))
    }

    fn end_sessions(&mut self, reason: Refusal) {
        self.session += 1;
        self.ended = Some((self.session, reason));
    }

    fn spool(&mut self, session: u64) -> Result<&mut Spool, Refusal> {
        if session != self.session {
            return Err(match &self.ended {
                Some((below, reason)) if session < *below => reason.clone(),
                _ => Refusal::Superseded,
            });
        }
        self.spool.as_mut().ok_or(Refusal::Unavailable { reason: "no spool".into() })
    }

    /// The target has answered the present session; who asks hears of it only if it was opened in
    /// its name.
    fn answer(&mut self, result: Result<(), Refusal>) {
        if let Some((_, identity, answer)) = &mut self.asking
            && Some(&*identity) == self.announced.as_ref()
        {
            *answer = Some(result);
        }
    }

    /// The present downstream session delivers the spool (and is not a question in somebody's
    /// name).
    fn about_spool(&self) -> bool {
        let spool = self.spool.as_ref().map(|spool| &spool.identity.lineage);
        spool.is_some() && spool == self.announced.as_ref().map(|identity| &identity.lineage)
    }

    fn begin_anew(&mut self, identity: SourceIdentity, position: &ReceiverPosition) {
        let log = SimLog::at(position);
        self.spool = Some(Spool { identity, log, delivered: position.durable });
        self.end_sessions(Refusal::Unavailable { reason: "the spool began anew".into() });
    }
}

impl Sink for Relay {
    fn open(
        &mut self,
        connection: u64,
        identity: &SourceIdentity,
    ) -> Option<Result<(u64, ReceiverPosition), Refusal>> {
        match &mut self.asking {
            Some((asking, ..)) if *asking != connection => return None,
            Some((_, _, answer)) => {
                let answer = answer.take()?;
                self.asking = None;
                if let Err(refusal) = answer {
                    return Some(Err(refusal));
                }
            }
            None => {
                let spool = self.spool.as_ref().map(|s| (&s.identity.lineage, s.log.tail()));
                let (mut instance, fenced_by) = (self.instance, self.fenced_by);
                if self.bug == Bug::CloneAdmitted {
                    instance = identity.instance;
                }
                match admit_upstream(identity, &RelayStanding { instance, fenced_by, spool }) {
                    Err(_) if self.bug == Bug::EpochIgnored && spool.is_some() => {}
                    Err(refusal) => return Some(Err(refusal)),
                    Ok(Upstream::Continue) => {}
                    Ok(Upstream::AskTarget) => {
                        self.asking = Some((connection, identity.clone(), None));
                        self.restart = true;
                        return None;
                    }
                }
            }
        }
        self.session += 1;
        let spool = self.spool.as_mut()?;
        spool.identity.incarnation = identity.incarnation;
        spool.log.flush();
        let (mut durable, mut chain) = (spool.log.tail(), spool.log.tail_chain());
        if self.bug == Bug::SkipAfterLostSpool {
            (durable, chain) = self.told.unwrap_or((durable, chain));
            self.told = Some((durable, chain));
        }
        let position = ReceiverPosition {
            lineage: match self.bug {
                Bug::EpochIgnored => identity.lineage.clone(),
                _ => spool.identity.lineage.clone(),
            },
            incarnation: spool.log.incarnation(),
            durable,
            chain,
            source_position: spool.log.ring(),
            durable_at_target: self.at_target.min(durable),
            image_copy: None,
            open_windows: spool.log.windows(),
            rotten: vec![],
        };
        Some(Ok((self.session, position)))
    }

    fn append(&mut self, session: u64, batch: &Batch) -> Result<(), Refusal> {
        let bug = self.bug;
        let refuses = std::mem::take(&mut self.refuses);
        let spool = self.spool(session)?;
        if refuses {
            return Err(Refusal::Unavailable { reason: "no space".into() });
        }
        match bug {
            Bug::EpochIgnored | Bug::SkipAfterLostSpool => {
                for record in &batch.records {
                    let mut record = record.clone();
                    record.header.lsn = spool.log.tail().next();
                    let epoch = match bug {
                        Bug::EpochIgnored => spool.identity.lineage.epoch(),
                        _ => batch.epoch,
                    };
                    spool.log.push(record, Stamp { epoch, ..stamp_of(batch) });
                }
                if bug == Bug::SkipAfterLostSpool {
                    self.told = Some((batch.last(), batch.chain_after()));
                }
                Ok(())
            }
            _ => spool.log.append(batch),
        }
    }

    fn flush(&mut self, session: u64) -> Result<Durable, Refusal> {
        let failed = self.fail_flush.take();
        self.spool(session)?;
        if let Some(seed) = failed {
            // What the disk holds is read again before anything is said about it.
            self.crash(&mut Rng::new(seed));
            self.restart = true;
            return Err(Refusal::Unavailable { reason: "a flush failed".into() });
        }
        self.spool(session)?.log.flush();
        self.durable(session)
    }

    fn durable(&mut self, session: u64) -> Result<Durable, Refusal> {
        let (at_target, bug, told) = (self.at_target, self.bug, self.told);
        let log = &self.spool(session)?.log;
        let here = match told {
            Some((told, _)) if bug == Bug::SkipAfterLostSpool => told,
            _ if bug == Bug::RelayAckOnReceive => log.tail(),
            _ => log.durable(),
        };
        Ok(Durable { here, at_target: at_target.min(here) })
    }

    fn stalled(&self) -> bool {
        self.full
    }

    fn gone(&mut self, connection: u64) {
        if self.asking.as_ref().is_some_and(|(asking, ..)| *asking == connection) {
            self.asking = None;
            self.restart |= self.spool.is_some() && !self.about_spool();
        }
    }
}

impl Source for Relay {
    fn identity(&mut self) -> Option<SourceIdentity> {
        self.announced = match &self.asking {
            Some((_, identity, None)) => Some(identity.clone()),
            Some(_) | None => self.spool.as_ref().map(|spool| spool.identity.clone()),
        };
        self.announced.clone()
    }

    fn resume(&mut self, position: &ReceiverPosition) -> Result<(), Refusal> {
        let identity = self.announced.clone().expect("it connected with one");
        let view = self.spool.as_ref().map(|spool| SpoolView {
            lineage: &spool.identity.lineage,
            tail: spool.log.tail(),
            delivered: spool.delivered,
            chain_there: spool.log.chain_at(position.durable),
        });
        match follow_target(&identity.lineage, view.as_ref(), position) {
            Downstream::Continue => {
                let spool = self.spool.as_mut().expect("it was looked at");
                let (offered, current) = (spool.identity.lineage.epoch(), identity.lineage.epoch());
                spool.identity = identity;
                spool.log.trim(position.durable);
                if !offered.is(&current) {
                    // Were the old epoch's session to go on, its records would follow in the new
                    // epoch's spool.
                    self.end_sessions(Refusal::Fenced { offered, current });
                }
            }
            Downstream::Restart { set_aside } => {
                self.set_aside += u32::from(set_aside);
                self.begin_anew(identity, position);
            }
        }
        self.at_target = position.durable_at_target;
        self.answer(Ok(()));
        Ok(())
    }

    fn read(&mut self, from: Lsn, count: u64) -> Option<Result<Batch, Refusal>> {
        let spool = self.spool.as_mut()?;
        let batch = spool.log.batch(from, count, spool.log.durable())?;
        if self.bug == Bug::RelayForgetsWhenSent {
            spool.log.trim(batch.last());
        }
        Some(Ok(batch))
    }

    fn acknowledged(&mut self, durable: Durable) {
        self.at_target = durable.at_target;
        if let Some(spool) = &mut self.spool {
            spool.delivered = durable.here;
            spool.log.trim(durable.here);
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        let about_spool = self.about_spool();
        if let Refusal::Fenced { current, .. } = refusal {
            if self.fenced_by.is_none_or(|known| known.number < current.number) {
                self.fenced_by = Some(*current);
            }
            if about_spool {
                self.end_sessions(refusal.clone());
            }
        }
        self.answer(Err(refusal.clone()));
        // What was refused was somebody who asked; the spool still has to be delivered.
        self.restart |= self.spool.is_some() && !about_spool;
    }
}
