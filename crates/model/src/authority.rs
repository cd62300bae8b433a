//! Who may write: *(machine, epoch, side, branch)*, changed in two steps that survive a crash
//! between them.
//!
//! ```text
//!            Demoted / Attested                 Reserved                    Promoted
//!   held ─────────────────────────► vacant ───────────────► promoting ─────────────────► held
//!    ▲                                │ GivenUp                │ Refused (the resource proves that it
//!    └────────────────────────────────┘                        │ did not promote)
//!    ▲─────────────────────────────────────────────────────────┘
//!    └─ ChangeReserved (another point of the same replica) ──► promoting
//! ```
//!
//! *Vacant* says why nobody else can write: a receipt of the demoted side, or an operator's
//! recorded word. Either allows exactly one promotion: reserving the epoch uses it up, and after a
//! crash the reserved epoch is what the promotion goes on with (trap T-17). A timeout is no proof
//! and no event.

use landfall_types::{BranchId, Chain, Class, Epoch, EpochId, Lsn};
use serde::{Deserialize, Serialize};

/// A side of a protected machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where the machine comes from.
    Home,
    /// Where it goes in a disaster.
    Recovery,
}

/// Who has authority.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// In which epoch.
    pub epoch: Epoch,
    /// Where.
    pub side: Side,
    /// Which branch; none for a machine on its own disks.
    pub branch: Option<BranchId>,
}

/// Why the former holder can't write any more.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "kebab-case")]
pub enum Proof {
    /// It was demoted and has written nothing after this position.
    Demoted {
        /// Its last LSN.
        lsn: Lsn,
        /// The chain there.
        chain: Chain,
    },
    /// An operator's recorded word.
    Attested {
        /// Who gave it.
        by: String,
        /// How they know.
        words: String,
    },
}

/// Where authority stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Authority {
    /// Somebody has it.
    Held {
        /// Who.
        holder: Holder,
    },
    /// Nobody writes; nothing is promoted.
    Vacant {
        /// Who had it.
        former: Holder,
        /// Why they can't write.
        proof: Proof,
    },
    /// An epoch is reserved; the promotion was ordered or will be.
    Promoting {
        /// Who had it.
        former: Holder,
        /// Why they can't write; none at a change of point, where the resource itself revokes the
        /// former branch.
        proof: Option<Proof>,
        /// Who gets it.
        holder: Holder,
    },
}

/// What happens to authority.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The holder of this epoch was demoted; its receipt.
    Demoted {
        /// The epoch that it held.
        epoch: EpochId,
        /// Its last LSN.
        lsn: Lsn,
        /// The chain there.
        chain: Chain,
    },
    /// An operator says that the holder can't write any more.
    Attested {
        /// Who.
        by: String,
        /// How they know; not empty.
        words: String,
    },
    /// The demotion or attestation is taken back: the former holder goes on in its epoch.
    GivenUp,
    /// A new epoch for a vacant authority.
    Reserved {
        /// Who is to get it.
        holder: Holder,
    },
    /// A new epoch for another branch of the replica that holds authority.
    ChangeReserved {
        /// The new branch.
        holder: Holder,
    },
    /// The resource has promoted.
    Promoted {
        /// In which epoch.
        epoch: EpochId,
    },
    /// The resource has answered that it did not promote, and the reservation is given up.
    Refused {
        /// The reserved epoch, which is never used again.
        epoch: EpochId,
    },
}

/// Why a change is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Not in this state.
    #[error("authority does not stand where this change begins")]
    WrongState,
    /// An epoch that does not hold now.
    #[error("epoch {0} is not the one that this is about")]
    OtherEpoch(EpochId),
    /// The new epoch's number is not higher than every number that was ever given.
    #[error("epoch number {new} is not above {highest}: it may have been used before")]
    UsedNumber {
        /// Asked for.
        new: u64,
        /// The highest that was ever given.
        highest: u64,
    },
    /// The new holder is on the side that is still the former one's.
    #[error("only another branch of the same replica can take over on the same side")]
    SameSide,
    /// An attestation without words.
    #[error("an attestation says how it is known that the source can't write")]
    NoWords,
}

impl AuthorityError {
    /// Fenced where authority has moved on, else a defect or a wrong request.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::OtherEpoch(_) => Class::Fenced,
            Self::NoWords => Class::Permanent,
            Self::WrongState | Self::UsedNumber { .. } | Self::SameSide => Class::Bug,
        }
    }
}

/// The only way authority changes. `highest` is the highest epoch number that was ever given for
/// the machine.
///
/// # Errors
/// [`AuthorityError`]; nothing has changed then.
pub fn next(
    authority: &Authority,
    change: &Change,
    highest: u64,
) -> Result<Authority, AuthorityError> {
    match (authority, change) {
        (Authority::Held { holder }, Change::Demoted { epoch, lsn, chain }) => {
            same_epoch(holder.epoch.id, *epoch)?;
            let proof = Proof::Demoted { lsn: *lsn, chain: *chain };
            Ok(Authority::Vacant { former: *holder, proof })
        }
        (Authority::Held { holder }, Change::Attested { by, words }) => {
            if words.trim().is_empty() {
                return Err(AuthorityError::NoWords);
            }
            let proof = Proof::Attested { by: by.clone(), words: words.clone() };
            Ok(Authority::Vacant { former: *holder, proof })
        }
        (Authority::Vacant { former, .. }, Change::GivenUp) => {
            Ok(Authority::Held { holder: *former })
        }
        (Authority::Vacant { former, proof }, Change::Reserved { holder }) => {
            unused(holder, highest)?;
            if holder.side == former.side {
                return Err(AuthorityError::SameSide);
            }
            Ok(Authority::Promoting {
                former: *former,
                proof: Some(proof.clone()),
                holder: *holder,
            })
        }
        (Authority::Held { holder: former }, Change::ChangeReserved { holder }) => {
            unused(holder, highest)?;
            // The same resource: it revokes the former branch before it serves the new one, in one
            // step of its own.
            if holder.side != former.side || holder.branch.is_none() || former.branch.is_none() {
                return Err(AuthorityError::SameSide);
            }
            Ok(Authority::Promoting { former: *former, proof: None, holder: *holder })
        }
        (Authority::Promoting { holder, .. }, Change::Promoted { epoch }) => {
            same_epoch(holder.epoch.id, *epoch)?;
            Ok(Authority::Held { holder: *holder })
        }
        (Authority::Promoting { former, proof, holder }, Change::Refused { epoch }) => {
            same_epoch(holder.epoch.id, *epoch)?;
            Ok(match proof {
                Some(proof) => Authority::Vacant { former: *former, proof: proof.clone() },
                None => Authority::Held { holder: *former },
            })
        }
        _ => Err(AuthorityError::WrongState),
    }
}

fn same_epoch(held: EpochId, named: EpochId) -> Result<(), AuthorityError> {
    if held == named { Ok(()) } else { Err(AuthorityError::OtherEpoch(named)) }
}

fn unused(holder: &Holder, highest: u64) -> Result<(), AuthorityError> {
    let new = holder.epoch.number;
    if new > highest { Ok(()) } else { Err(AuthorityError::UsedNumber { new, highest }) }
}

impl Authority {
    /// Who may write now: nobody while it is vacant, and nobody that we could name while a
    /// promotion is under way.
    #[must_use]
    pub const fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held { holder } => Some(holder),
            Self::Vacant { .. } | Self::Promoting { .. } => None,
        }
    }

    /// The newest epoch that was in force: the holder's, else the former holder's.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Held { holder } => holder.epoch,
            Self::Vacant { former, .. } | Self::Promoting { former, .. } => former.epoch,
        }
    }
}

/// What a resource (a replica, an agent) does with an order to promote: the rule that makes a
/// repeated order harmless and a late one void. The resource keeps `held` durably; the controller
/// only asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is new: carry it out.
    New,
    /// It has been carried out: answer the same.
    Repeat,
    /// Authority has moved on, or two controllers gave the same number.
    Fenced,
}

/// See [`Admission`]. `held` is the newest epoch that the resource knows.
#[must_use]
pub fn admit(held: &Epoch, ordered: &Epoch) -> Admission {
    if held.is(ordered) {
        Admission::Repeat
    } else if ordered.number > held.number {
        Admission::New
    } else {
        Admission::Fenced
    }
}

#[cfg(test)]
mod tests;
