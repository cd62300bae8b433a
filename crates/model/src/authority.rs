//! Who may write, as the configuration server holds it (design section 7, trap T-17).
//!
//! ```text
//!            Demote            Demoted / Fenced          Granted            Promoted
//!   Held ────────────► Demoting ───────────────► Vacant ─────────► Promoting ─────────► Held (new epoch, other side)
//!    │                     │ KeptInstead           ▲
//!    │                     └────────► Held         │
//!    └──────────── Fenced (proof or word) ─────────┘
//! ```
//!
//! Each arrow is one compare-and-set in the database. `Granted` uses the vacancy up: a crash between it and
//! `Promoted` repeats the *same* promotion (same epoch number and ID), never a second one. The resource enforces
//! the rest: it accepts only higher epochs, durably.

use landfall_types::Epoch;

/// One of the two places where a machine can run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where the machine was protected.
    Home,
    /// Where it fails over to.
    Recovery,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Home => Self::Recovery,
            Self::Recovery => Self::Home,
        }
    }
}

/// How sure we are that the former holder can't write any more. A timeout is none of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FenceProof {
    /// The resource itself said, durably, that it is demoted.
    Receipt,
    /// The fabric proved it: powered off, disk or network detached.
    Fabric,
    /// An operator's recorded word.
    Attestation,
}

/// Where authority is on its way between two holders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// `side` may write.
    Held,
    /// `side` was asked to stop; it may still write.
    Demoting,
    /// Nobody may write. Allows exactly one grant.
    Vacant {
        /// Why the former holder can't.
        proof: FenceProof,
    },
    /// `to` was granted the new epoch; whether it knows is not known.
    Promoting {
        /// Who is to write.
        to: Side,
        /// In which epoch.
        epoch: Epoch,
    },
}

/// Authority over one machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Authority {
    /// The epoch that holds, or held last.
    pub epoch: Epoch,
    /// Who holds it, or held it last.
    pub side: Side,
    /// What is going on.
    pub phase: Phase,
}

/// What changes authority.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuthorityEvent {
    /// Planned: the holder is asked to stop.
    Demote,
    /// The holder's receipt, for the epoch that it names.
    Demoted {
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// The demotion was given up and the holder serves again: only before anything was granted.
    KeptInstead,
    /// Proof, or an operator's word, that the holder can't write. Never made from a timeout.
    Fenced {
        /// Which.
        proof: FenceProof,
    },
    /// A new epoch for `to`.
    Granted {
        /// Who is to write.
        to: Side,
        /// Its number is higher and its parent the present epoch.
        epoch: Epoch,
    },
    /// The new holder has it durably.
    Promoted {
        /// The epoch that it holds.
        epoch: Epoch,
    },
}

/// An event that may not happen now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("authority in epoch {} ({:?}) does not allow {event:?}", .at.epoch, .at.phase)]
pub struct AuthorityRefused {
    /// Where authority is.
    pub at: Authority,
    /// What was tried.
    pub event: AuthorityEvent,
}

impl Authority {
    /// A machine's first: home writes.
    #[must_use]
    pub const fn first(epoch: Epoch) -> Self {
        Self { epoch, side: Side::Home, phase: Phase::Held }
    }

    /// The epoch that a grant must carry: one higher, with the present one as its parent; `random` is 64 random bits.
    #[must_use]
    pub const fn successor(&self, random: u64) -> Epoch {
        let newest = match self.phase {
            Phase::Promoting { epoch, .. } => epoch.number,
            Phase::Held | Phase::Demoting | Phase::Vacant { .. } => self.epoch.number,
        };
        Epoch {
            number: newest.checked_add(1).expect("epochs are few"),
            id: landfall_types::EpochId::new(random),
            parent: Some(self.epoch.id),
        }
    }

    /// Authority after an event.
    ///
    /// # Errors
    /// [`AuthorityRefused`]: a promotion without vacancy, an epoch that is not higher, a receipt of another epoch.
    pub fn next(self, event: AuthorityEvent) -> Result<Self, AuthorityRefused> {
        use AuthorityEvent as E;
        let refused = AuthorityRefused { at: self, event };
        let phase = match (self.phase, event) {
            (Phase::Held, E::Demote) => Phase::Demoting,
            (Phase::Demoting, E::Demoted { epoch }) if epoch.is(&self.epoch) => {
                Phase::Vacant { proof: FenceProof::Receipt }
            }
            // Before a grant nobody else can have been promoted, so the holder may go on.
            (Phase::Demoting | Phase::Vacant { proof: FenceProof::Receipt }, E::KeptInstead) => {
                Phase::Held
            }
            (Phase::Held | Phase::Demoting, E::Fenced { proof })
                if proof != FenceProof::Receipt =>
            {
                Phase::Vacant { proof }
            }
            (Phase::Vacant { .. }, E::Granted { to, epoch }) if self.may_follow(epoch) => {
                Phase::Promoting { to, epoch }
            }
            (Phase::Promoting { to, epoch }, E::Promoted { epoch: held }) if held.is(&epoch) => {
                return Ok(Self { epoch, side: to, phase: Phase::Held });
            }
            _ => return Err(refused),
        };
        Ok(Self { phase, ..self })
    }

    fn may_follow(&self, epoch: Epoch) -> bool {
        epoch.number > self.epoch.number && epoch.parent == Some(self.epoch.id)
    }
}

#[cfg(test)]
mod tests;
