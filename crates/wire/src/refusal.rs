//! A refusal with its values, so that it comes back typed on the other side.

use crate::shape::EpochShape;
use landfall_repl::Refusal;
use landfall_repl::limits::DETAIL_BYTES_MAX;
use landfall_types::{InstanceId, Lsn, ReplicaId};
use minicbor::{Decode, Encode};

/// One shape for all: a code says which of the optional values belong to it.
#[derive(Default, Encode, Decode)]
pub(crate) struct RefusalShape {
    #[n(0)]
    code: u16,
    /// For people; also the name, state or reason that a variant carries.
    #[n(1)]
    text: Option<String>,
    #[n(2)]
    offered: Option<EpochShape>,
    #[n(3)]
    current: Option<EpochShape>,
    #[n(4)]
    first: Option<u64>,
    #[n(5)]
    second: Option<u64>,
    #[cbor(n(6), with = "minicbor::bytes")]
    id: Option<[u8; 16]>,
}

const FENCED: u16 = 1;
const DIVERGED: u16 = 2;
const GAP: u16 = 3;
const CHAIN_MISMATCH: u16 = 4;
const UNKNOWN_REPLICA: u16 = 5;
const OTHER_INSTANCE: u16 = 6;
const NOT_REPLICATING: u16 = 7;
const SUPERSEDED: u16 = 8;
const UNAVAILABLE: u16 = 9;
const PROTOCOL: u16 = 10;

impl From<&Refusal> for RefusalShape {
    fn from(refusal: &Refusal) -> Self {
        let code = |code| Self { code, ..Self::default() };
        let two = |code, first: Lsn, second: Lsn| Self {
            code,
            first: Some(first.get()),
            second: Some(second.get()),
            ..Self::default()
        };
        let text = |code, text: &str| Self { code, text: Some(cut(text)), ..Self::default() };
        let id = |code, id: &[u8; 16]| Self { code, id: Some(*id), ..Self::default() };
        match refusal {
            Refusal::Fenced { offered, current } => Self {
                code: FENCED,
                offered: Some((*offered).into()),
                current: Some((*current).into()),
                ..Self::default()
            },
            Refusal::Diverged { common, durable } => two(DIVERGED, *common, *durable),
            Refusal::Gap { expected, found } => two(GAP, *expected, *found),
            Refusal::ChainMismatch { lsn } => {
                Self { first: Some(lsn.get()), ..code(CHAIN_MISMATCH) }
            }
            Refusal::UnknownReplica(replica) => id(UNKNOWN_REPLICA, replica.as_bytes()),
            Refusal::OtherInstance(instance) => id(OTHER_INSTANCE, instance.as_bytes()),
            Refusal::NotReplicating { state } => text(NOT_REPLICATING, state),
            Refusal::Superseded => code(SUPERSEDED),
            Refusal::Unavailable { reason } => text(UNAVAILABLE, reason),
            Refusal::Protocol { detail } => text(PROTOCOL, detail),
        }
    }
}

impl RefusalShape {
    /// `None`: a value that belongs to the code is missing.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        let lsn = |raw: Option<u64>| raw.map(Lsn::new);
        let text = cut(&self.text.unwrap_or_default());
        Some(match self.code {
            FENCED => {
                Refusal::Fenced { offered: self.offered?.into(), current: self.current?.into() }
            }
            DIVERGED => Refusal::Diverged { common: lsn(self.first)?, durable: lsn(self.second)? },
            GAP => Refusal::Gap { expected: lsn(self.first)?, found: lsn(self.second)? },
            CHAIN_MISMATCH => Refusal::ChainMismatch { lsn: lsn(self.first)? },
            UNKNOWN_REPLICA => Refusal::UnknownReplica(ReplicaId::from_bytes(self.id?)),
            OTHER_INSTANCE => Refusal::OtherInstance(InstanceId::from_bytes(self.id?)),
            NOT_REPLICATING => Refusal::NotReplicating { state: text },
            SUPERSEDED => Refusal::Superseded,
            UNAVAILABLE => Refusal::Unavailable { reason: text },
            PROTOCOL => Refusal::Protocol { detail: text },
            // A later version refuses for a reason that we have no word for: slow retries, and its
            // text shown.
            other => Refusal::Protocol { detail: format!("refused with code {other}: {text}") },
        })
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let refusal = Refusal::Unavailable { reason: "ä".repeat(DETAIL_BYTES_MAX) };
        let Some(Refusal::Unavailable { reason }) = RefusalShape::from(&refusal).refusal() else {
            panic!("another variant")
        };
        assert_eq!(reason.len(), DETAIL_BYTES_MAX);
        let odd = format!("x{}", "ä".repeat(DETAIL_BYTES_MAX));
        assert_eq!(cut(&odd).len(), DETAIL_BYTES_MAX - 1);
    }

    #[test]
    fn codes_of_later_versions_and_missing_values_are_no_surprise() {
        let later = RefusalShape { code: 999, text: Some("because".into()), ..Default::default() };
        let refusal = later.refusal().expect("understood");
        assert_eq!(refusal.code(), "protocol");
        assert!(refusal.to_string().contains("because"));
        for code in [FENCED, DIVERGED, GAP, CHAIN_MISMATCH, UNKNOWN_REPLICA, OTHER_INSTANCE] {
            assert_eq!(RefusalShape { code, ..Default::default() }.refusal(), None);
        }
    }
}
