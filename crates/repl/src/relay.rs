//! What a hop in the middle decides: it receives for its spool, and sends from it.
//!
//! A relay's spool can be older or newer than what the target holds, of another epoch, or lost. The
//! two decisions here keep it from ever skipping records or mixing histories; they are pure, so
//! that the process server and the simulation make the same ones.

use crate::admission::{Admission, Standing, admit};
use crate::{ReceiverPosition, Refusal, SourceIdentity};
use landfall_types::{Chain, Epoch, InstanceId, Lineage, Lsn};

/// What a relay knows durably about one replica.
#[derive(Clone, Copy, Debug)]
pub struct RelayStanding<'a> {
    /// The instance that the route was granted to (trap T-11).
    pub instance: InstanceId,
    /// An epoch that the target has refused us for: whoever does not stand on it is refused for
    /// ever.
    pub fenced_by: Option<Epoch>,
    /// History and last record of the spool; `None` when there is none, or it was lost.
    pub spool: Option<(&'a Lineage, Lsn)>,
}

/// What to do with a sender that was not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// The spool goes on: answer with its own position.
    Continue,
    /// The spool can't answer. Announce this sender's identity to the target, apply
    /// [`follow_target`] to what it says, and answer then.
    AskTarget,
}

/// Decides about a sender that announces itself at a relay.
///
/// # Errors As [`admit`]; and [`Refusal::Fenced`] for whoever does not stand on an epoch that the
/// target has named before.
pub fn admit_upstream(
    identity: &SourceIdentity,
    standing: &RelayStanding<'_>,
) -> Result<Upstream, Refusal> {
    if standing.instance != identity.instance {
        return Err(Refusal::OtherInstance(identity.instance));
    }
    let offered = identity.lineage.epoch();
    if let Some(current) = standing.fenced_by
        && identity.lineage.fork_of(current.id).is_none()
        && offered.number <= current.number
    {
        return Err(Refusal::Fenced { offered, current });
    }
    let Some((lineage, tail)) = standing.spool else { return Ok(Upstream::AskTarget) };
    match admit(identity, &Standing { lineage, tail, instance: Some(standing.instance) }) {
        Ok(Admission::Same) => Ok(Upstream::Continue),
        // The target may be far ahead of a spool that the old epoch left behind: were the spool to
        // answer, the sender would be sent back to records that it no longer has.
        Ok(Admission::Newer) => Ok(Upstream::AskTarget),
        // The spool holds records that the newer epoch left behind. They are not this sender's
        // fault.
        Err(Refusal::Diverged { .. }) if offered.number > lineage.epoch().number => {
            Ok(Upstream::AskTarget)
        }
        Err(refusal) => Err(refusal),
    }
}

/// A spool as [`follow_target`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct SpoolView<'a> {
    /// Its history.
    pub lineage: &'a Lineage,
    /// Its last record.
    pub tail: Lsn,
    /// Up to here the target has acknowledged its records.
    pub delivered: Lsn,
    /// The chain in the spool at the target's position; `None` when that lies outside of it.
    pub chain_there: Option<Chain>,
}

/// How the spool relates to where the target stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Downstream {
    /// The spool has what comes next.
    Continue,
    /// It has not (lost, behind, of another history): it begins anew at the target's position, and
    /// whoever sends to it has to look at the new position. Never a skip.
    Restart {
        /// The old spool holds records that the target has not acknowledged: they are kept as
        /// divergence, readable, until someone discards them (trap T-14).
        set_aside: bool,
    },
}

/// Decides whether the spool can go on from the target's position, in the history of the sender
/// that it serves.
#[must_use]
pub fn follow_target(
    lineage: &Lineage,
    spool: Option<&SpoolView<'_>>,
    position: &ReceiverPosition,
) -> Downstream {
    let Some(spool) = spool else { return Downstream::Restart { set_aside: false } };
    let common = match lineage == spool.lineage {
        true => Lsn::MAX,
        false => lineage.common_through(spool.lineage).unwrap_or(Lsn::ZERO),
    };
    if spool.tail <= common && spool.chain_there == Some(position.chain) {
        return Downstream::Continue;
    }
    Downstream::Restart { set_aside: spool.tail > spool.delivered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{chain, epoch, identity, position};
    use landfall_types::EpochId;

    fn newer(fork: u64) -> (Epoch, Lineage) {
        let new = Epoch { number: 2, id: EpochId::new(2), parent: Some(epoch().id) };
        (new, identity().lineage.extend(new, Lsn::new(fork)).expect("rises"))
    }
    fn ask(
        lineage: &Lineage,
        spool: Option<(&Lineage, u64)>,
        fenced_by: Option<Epoch>,
    ) -> Result<Upstream, Refusal> {
        let sender = SourceIdentity { lineage: lineage.clone(), ..identity() };
        let spool = spool.map(|(lineage, tail)| (lineage, Lsn::new(tail)));
        let instance = identity().instance;
        admit_upstream(&sender, &RelayStanding { instance, fenced_by, spool })
    }

    #[test]
    fn the_spool_answers_only_where_it_knows() {
        let old = identity().lineage;
        let (_, new) = newer(50);
        assert_eq!(ask(&old, Some((&old, 80)), None), Ok(Upstream::Continue));
        assert_eq!(ask(&old, None, None), Ok(Upstream::AskTarget));
        assert_eq!(ask(&new, Some((&old, 40)), None), Ok(Upstream::AskTarget));
        assert_eq!(ask(&new, Some((&old, 80)), None), Ok(Upstream::AskTarget), "diverged spool");
    }

    /// Guards P6: a frame of a lower epoch is refused at every hop for ever, also after the spool
    /// was lost.
    #[test]
    fn an_epoch_that_is_over_is_refused_with_and_without_spool() {
        let old = identity().lineage;
        let (current, new) = newer(50);
        let refusal = Err(Refusal::Fenced { offered: epoch(), current });
        assert_eq!(ask(&old, Some((&new, 50)), None), refusal);
        assert_eq!(ask(&old, None, Some(current)), refusal);
        assert_eq!(ask(&old, Some((&old, 80)), Some(current)), refusal);
        assert_eq!(ask(&new, None, Some(current)), Ok(Upstream::AskTarget));
        let stranger = SourceIdentity {
            instance: landfall_types::InstanceId::from_bytes([9; 16]),
            ..identity()
        };
        let standing =
            RelayStanding { instance: identity().instance, fenced_by: None, spool: None };
        assert_eq!(
            admit_upstream(&stranger, &standing),
            Err(Refusal::OtherInstance(stranger.instance))
        );
    }

    /// Guards "a hop forgets only what the next hop has": no position of the target leads to a
    /// skip.
    #[test]
    fn the_spool_goes_on_only_where_its_chain_is_the_targets() {
        let old = identity().lineage;
        let (_, new) = newer(50);
        let view = |tail, chain_there| SpoolView {
            lineage: &old,
            tail: Lsn::new(tail),
            delivered: Lsn::new(4),
            chain_there,
        };
        let at = position(4);
        let fits = view(8, Some(chain(4)));
        assert_eq!(follow_target(&old, Some(&fits), &at), Downstream::Continue);
        assert_eq!(follow_target(&new, Some(&fits), &at), Downstream::Continue);
        let set_aside = |set_aside| Downstream::Restart { set_aside };
        assert_eq!(follow_target(&old, None, &at), set_aside(false));
        assert_eq!(follow_target(&old, Some(&view(8, None)), &at), set_aside(true));
        assert_eq!(follow_target(&old, Some(&view(8, Some(chain(3)))), &at), set_aside(true));
        assert_eq!(follow_target(&old, Some(&view(4, None)), &at), set_aside(false), "delivered");
        let beyond_fork = view(80, Some(chain(4)));
        assert_eq!(follow_target(&new, Some(&beyond_fork), &at), set_aside(true));
    }
}
