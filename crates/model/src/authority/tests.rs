//! T-17, explored exhaustively: every interleaving of a controller that can crash at any step, a stale copy of it,
//! two resources, and a network that loses, repeats and reorders.

use super::*;
use landfall_types::EpochId;
use std::collections::{BTreeMap, HashSet, VecDeque};

const EPOCHS_MAX: u64 = 4;

/// What a defective implementation would do; the exploration must catch each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    None,
    /// A holder that is silent counts as fenced.
    TimeoutIsProof,
    /// The resource takes any epoch.
    ResourceIgnoresEpoch,
    /// A restart between grant and promotion grants again, to the other side.
    GrantsTwice,
}

/// What a side holds durably, and whether it is physically able to write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Resource {
    epoch: Epoch,
    writable: bool,
    fenced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Message {
    Demote { to: Side, number: u64 },
    DemoteReceipt { number: u64 },
    Promote { to: Side, number: u64 },
    PromoteReceipt { number: u64 },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    /// What the database holds: survives every crash.
    authority: Authority,
    home: Resource,
    recovery: Resource,
    /// Sent and never forgotten: delivery in any order, any number of times, or never.
    network: Vec<Message>,
}

/// Numbers are enough here: the ID of an epoch follows from its number and the side that it was granted to.
fn epoch(number: u64) -> Epoch {
    Epoch {
        number,
        id: EpochId::new(number),
        parent: number.checked_sub(1).filter(|n| *n > 0).map(EpochId::new),
    }
}

impl World {
    fn new() -> Self {
        let first = epoch(1);
        Self {
            authority: Authority::first(first),
            home: Resource { epoch: first, writable: true, fenced: false },
            recovery: Resource { epoch: first, writable: false, fenced: false },
            network: Vec::new(),
        }
    }

    fn at(&mut self, side: Side) -> &mut Resource {
        match side {
            Side::Home => &mut self.home,
            Side::Recovery => &mut self.recovery,
        }
    }

    fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    fn writers(&self) -> usize {
        [self.home, self.recovery].iter().filter(|side| side.writable && !side.fenced).count()
    }

    /// The database's compare-and-set; a refused event changes nothing.
    fn decide(&mut self, event: AuthorityEvent) -> bool {
        self.authority.next(event).map(|next| self.authority = next).is_ok()
    }

    fn successors(&self, defect: Defect) -> Vec<Self> {
        let mut out = self.controller_steps(defect);
        for message in &self.network {
            let mut world = self.clone();
            world.deliver(*message, defect);
            out.push(world);
        }
        // A fenced side comes back only after it has durably learned that its epoch is over (rule S6).
        for side in [Side::Home, Side::Recovery] {
            let mut world = self.clone();
            let newest = self.authority.epoch;
            let resource = world.at(side);
            if resource.fenced && newest.number > resource.epoch.number {
                *resource = Resource { epoch: newest, writable: false, fenced: false };
                out.push(world);
            }
        }
        out
    }

    fn controller_steps(&self, defect: Defect) -> Vec<Self> {
        let mut out = Vec::new();
        let holder = self.authority.side;
        let mut step = |change: &dyn Fn(&mut Self) -> bool| {
            let mut world = self.clone();
            if change(&mut world) {
                out.push(world);
            }
        };
        let number = self.authority.epoch.number;
        step(&|w| {
            // Also what a restarted controller does: the order is repeated as it stands in the database.
            w.decide(AuthorityEvent::Demote);
            let demoting = w.authority.phase == Phase::Demoting;
            if demoting {
                w.send(Message::Demote { to: holder, number });
            }
            demoting
        });
        step(&|w| {
            w.at(holder).fenced = true;
            w.decide(AuthorityEvent::Fenced { proof: FenceProof::Fabric })
        });
        if defect == Defect::TimeoutIsProof {
            step(&|w| w.decide(AuthorityEvent::Fenced { proof: FenceProof::Fabric }));
        }
        if number < EPOCHS_MAX {
            for to in [Side::Home, Side::Recovery] {
                step(&|w| w.decide(AuthorityEvent::Granted { to, epoch: epoch(number + 1) }));
                if defect == Defect::GrantsTwice {
                    step(&|w| {
                        let Phase::Promoting { epoch, .. } = w.authority.phase else {
                            return false;
                        };
                        w.authority.phase = Phase::Promoting { to, epoch };
                        true
                    });
                }
            }
        }
        if let Phase::Promoting { to, epoch } = self.authority.phase {
            step(&|w| {
                w.send(Message::Promote { to, number: epoch.number });
                true
            });
        }
        out
    }

    fn deliver(&mut self, message: Message, defect: Defect) {
        match message {
            Message::Demote { to, number } => {
                let resource = self.at(to);
                if resource.epoch.number == number {
                    resource.writable = false;
                    self.send(Message::DemoteReceipt { number });
                }
            }
            Message::DemoteReceipt { number } => {
                self.decide(AuthorityEvent::Demoted { epoch: epoch(number) });
            }
            Message::Promote { to, number } => {
                let resource = self.at(to);
                let newer = number > resource.epoch.number;
                if newer || defect == Defect::ResourceIgnoresEpoch {
                    *resource = Resource { epoch: epoch(number), writable: true, ..*resource };
                }
                if resource.epoch.number == number {
                    self.send(Message::PromoteReceipt { number });
                }
            }
            Message::PromoteReceipt { number } => {
                self.decide(AuthorityEvent::Promoted { epoch: epoch(number) });
            }
        }
    }
}

struct Explored {
    states: usize,
    split_brain: Option<World>,
    holders: BTreeMap<u64, HashSet<Side>>,
}

fn explore(defect: Defect) -> Explored {
    let mut seen = HashSet::from([World::new()]);
    let mut queue = VecDeque::from([World::new()]);
    let mut holders: BTreeMap<u64, HashSet<Side>> = BTreeMap::new();
    let mut split_brain = None;
    while let Some(world) = queue.pop_front() {
        if world.writers() > 1 {
            split_brain = Some(world);
            break;
        }
        if world.authority.phase == Phase::Held {
            holders.entry(world.authority.epoch.number).or_default().insert(world.authority.side);
        }
        for next in world.successors(defect) {
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    Explored { states: seen.len(), split_brain, holders }
}

#[test]
fn t17_never_two_writable_sides() {
    let explored = explore(Defect::None);
    assert!(explored.split_brain.is_none(), "{:#?}", explored.split_brain);
    assert!(explored.states > 1_000, "only {} states: the model can't move", explored.states);
    // Both sides can hold each later epoch: failover and failback are reachable.
    for number in 2..=EPOCHS_MAX {
        assert_eq!(explored.holders[&number].len(), 2, "epoch {number}");
    }
}

#[test]
fn t17_seeded_defects_are_caught() {
    for defect in [Defect::TimeoutIsProof, Defect::ResourceIgnoresEpoch, Defect::GrantsTwice] {
        assert!(explore(defect).split_brain.is_some(), "{defect:?} was not caught");
    }
}

#[test]
fn t17_a_vacancy_allows_exactly_one_grant() {
    let held = Authority::first(epoch(1));
    let vacant = held
        .next(AuthorityEvent::Demote)
        .and_then(|at| at.next(AuthorityEvent::Demoted { epoch: epoch(1) }))
        .expect("demote, then the receipt");
    let grant = |to, number| AuthorityEvent::Granted { to, epoch: epoch(number) };
    let promoting = vacant.next(grant(Side::Recovery, 2)).expect("vacant");
    assert!(promoting.next(grant(Side::Home, 2)).is_err(), "granted twice");
    assert!(promoting.next(AuthorityEvent::KeptInstead).is_err(), "kept although granted");
    assert!(vacant.next(grant(Side::Recovery, 1)).is_err(), "an epoch must rise");
    assert!(held.next(grant(Side::Recovery, 2)).is_err(), "granted while held");
    assert!(
        held.next(AuthorityEvent::Fenced { proof: FenceProof::Receipt }).is_err(),
        "a receipt comes from the resource, as Demoted"
    );
}
