//! An exhaustive model check of authority: a controller whose only memory is its database, a second
//! controller that works from an old view of it, two sites, orders that are late, repeated or never
//! arrive, crashes anywhere.
//!
//! Guards P6: at no moment can two sides write, unless one is physically fenced. The controller has
//! no state of its own between steps, so a crash is every moment at which it goes on from the
//! database. The check calls
//! `authority::next` and `authority::admit`, as the product does. Seeded bugs must be found, and
//! the wanted histories must be reachable: a model that forbids everything would pass too.

use landfall_model::authority::{Admission, Authority, Change, Holder, Side, admit, next};
use landfall_types::{BranchId, Chain, Epoch, EpochId, Lsn};
use std::collections::{HashSet, VecDeque};

/// Highest epoch number that the model goes to: protect, failover, change of point or failback, and
/// once more.
const NUMBER_MAX: u64 = 4;
/// Most changes of authority in one history: out, home again. `LANDFALL_MODEL_DEPTH=8` goes on to a
/// demotion that is given up in between (1.5 million states, half a minute).
const GENERATION_MAX: u64 = 6;

fn depth() -> u64 {
    let asked = std::env::var("LANDFALL_MODEL_DEPTH").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(GENERATION_MAX)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// A silent source counts as dead.
    PromoteOnTimeout,
    /// An epoch is reserved while the other side holds authority.
    UnplannedWithoutProof,
    /// A site promotes in whatever epoch it is told.
    SiteIgnoresEpoch,
    /// The undo of a demotion is not waited for before the next step.
    UndoNotAwaited,
    /// The second controller writes without comparing the generation.
    NoCompareAndSet,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Replicating,
    Writable,
    Demoted,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Site {
    held: Epoch,
    role: Role,
    /// Physically: powered off or its disks detached. Only an operator who has seen to it says so.
    dead: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ask {
    Demote,
    Undemote,
    Promote,
    Follow,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Answer {
    Done,
    Refused,
}

/// An order is a row of the database; the site remembers what it answered (at most once each).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Order {
    ask: Ask,
    side: Side,
    epoch: Epoch,
    answer: Option<Answer>,
    /// The controller has seen the answer.
    seen: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Database {
    authority: Authority,
    highest: u64,
    generation: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    database: Database,
    /// What a second controller read at some time.
    stale: Option<Database>,
    orders: Vec<Order>,
    home: Site,
    recovery: Site,
}

fn epoch(number: u64, id: u64, parent: Option<EpochId>) -> Epoch {
    Epoch { number, id: EpochId::new(id), parent }
}

impl World {
    fn new() -> Self {
        let first = epoch(1, 1, None);
        let holder = Holder { epoch: first, side: Side::Home, branch: None };
        let authority = Authority::Held { holder };
        Self {
            database: Database { authority, highest: 1, generation: 0 },
            stale: None,
            orders: Vec::new(),
            home: Site { held: first, role: Role::Writable, dead: false },
            recovery: Site { held: first, role: Role::Replicating, dead: false },
        }
    }

    fn site(&mut self, side: Side) -> &mut Site {
        match side {
            Side::Home => &mut self.home,
            Side::Recovery => &mut self.recovery,
        }
    }

    fn writers(&self) -> usize {
        let writes = |site: &&Site| site.role == Role::Writable && !site.dead;
        [&self.home, &self.recovery].into_iter().filter(writes).count()
    }

    fn issue(&mut self, ask: Ask, side: Side, epoch: Epoch) {
        let order = Order { ask, side, epoch, answer: None, seen: false };
        let same = |old: &Order| (old.ask, old.side, old.epoch) == (ask, side, epoch);
        // Repeating an undemotion or a demotion is a new order; a promotion has one order for ever.
        let repeatable = matches!(ask, Ask::Demote | Ask::Undemote);
        let open = self.orders.iter().any(|old| same(old) && (!repeatable || !old.seen));
        if !open {
            self.orders.push(order);
            // A set: histories that differ only in the order of issuing are one.
            self.orders
                .sort_by_key(|order| (order.ask as u8, order.side as u8, order.epoch.number));
        }
    }

    fn answer(&self, ask: Ask, epoch: Epoch) -> Option<(usize, Answer)> {
        let found =
            |(_, order): &(usize, &Order)| order.ask == ask && order.epoch == epoch && !order.seen;
        let (at, order) = self.orders.iter().enumerate().find(found)?;
        Some((at, order.answer?))
    }

    fn undemoting(&self) -> bool {
        self.orders.iter().any(|order| order.ask == Ask::Undemote && !order.seen)
    }
}

/// The site carries out an order that it has not answered yet.
fn carry_out(world: &World, at: usize, bug: Bug) -> World {
    let mut after = world.clone();
    let order = world.orders[at];
    let site = after.site(order.side);
    let admission = match bug {
        Bug::SiteIgnoresEpoch if order.ask == Ask::Promote => Admission::New,
        _ => admit(&site.held, &order.epoch),
    };
    let answer = match (order.ask, admission) {
        (Ask::Promote, Admission::New) => {
            // Being handed its disks anew is what brings a machine back.
            *site = Site { held: order.epoch, role: Role::Writable, dead: false };
            Answer::Done
        }
        (Ask::Promote | Ask::Demote, Admission::Repeat) if site.role == Role::Writable => {
            if order.ask == Ask::Demote {
                site.role = Role::Demoted;
            }
            Answer::Done
        }
        (Ask::Demote, Admission::Repeat) if site.role == Role::Demoted => Answer::Done,
        (Ask::Undemote, Admission::Repeat) if site.role == Role::Demoted => {
            site.role = Role::Writable;
            Answer::Done
        }
        (Ask::Follow, Admission::New) => {
            (site.held, site.role) = (order.epoch, Role::Replicating);
            Answer::Done
        }
        _ => Answer::Refused,
    };
    after.orders[at].answer = Some(answer);
    after
}

fn other(side: Side) -> Side {
    match side {
        Side::Home => Side::Recovery,
        Side::Recovery => Side::Home,
    }
}

/// What a controller may do that sees `view`; the changes of authority that it may try.
fn changes(world: &World, view: &Database, bug: Bug, id: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    let number = view.highest + 1;
    let holder = |side, parent: Epoch| {
        let branch = (side == Side::Recovery).then(|| BranchId::from_bytes([id as u8; 16]));
        Holder { epoch: epoch(number, id, Some(parent.id)), side, branch }
    };
    match &view.authority {
        Authority::Held { holder: held } => {
            let site = if held.side == Side::Home { &world.home } else { &world.recovery };
            if site.dead || bug == Bug::PromoteOnTimeout {
                let words = "powered off".to_owned();
                changes.push(Change::Attested { by: "operator".to_owned(), words });
            }
            if let Some((_, Answer::Done)) = world.answer(Ask::Demote, held.epoch) {
                let (lsn, chain) = (Lsn::new(1), Chain::ROOT);
                changes.push(Change::Demoted { epoch: held.epoch.id, lsn, chain });
            }
            if held.side == Side::Recovery {
                changes.push(Change::ChangeReserved { holder: holder(held.side, held.epoch) });
            }
        }
        Authority::Vacant { former, .. } => {
            if !world.undemoting() || bug == Bug::UndoNotAwaited {
                changes.push(Change::Reserved { holder: holder(other(former.side), former.epoch) });
            }
            // Given up in the database once the former holder has answered that it serves again.
            if let Some((_, Answer::Done)) = world.answer(Ask::Undemote, former.epoch) {
                changes.push(Change::GivenUp);
            }
        }
        Authority::Promoting { holder, .. } => match world.answer(Ask::Promote, holder.epoch) {
            Some((_, Answer::Done)) => changes.push(Change::Promoted { epoch: holder.epoch.id }),
            Some((_, Answer::Refused)) => changes.push(Change::Refused { epoch: holder.epoch.id }),
            None => {}
        },
    }
    changes.retain(|change| {
        let reserves = matches!(change, Change::Reserved { .. } | Change::ChangeReserved { .. });
        !reserves || number <= NUMBER_MAX
    });
    changes
}

/// Orders that a controller may issue from what it sees.
fn issues(world: &World, view: &Database) -> Vec<(Ask, Side, Epoch)> {
    match &view.authority {
        Authority::Held { holder } => {
            let mut orders = vec![(Ask::Demote, holder.side, holder.epoch)];
            if holder.epoch.number > 1 {
                orders.push((Ask::Follow, other(holder.side), holder.epoch));
            }
            orders
        }
        // A dead source has nothing to go on with: undoing is for demoted ones.
        Authority::Vacant { former, .. } if !world.undemoting() => {
            vec![(Ask::Undemote, former.side, former.epoch)]
        }
        Authority::Vacant { .. } => Vec::new(),
        Authority::Promoting { holder, .. } => vec![(Ask::Promote, holder.side, holder.epoch)],
    }
}

fn apply(view: &Database, change: &Change) -> Option<Database> {
    let authority = next(&view.authority, change, view.highest).ok()?;
    let highest = match change {
        Change::Reserved { holder } | Change::ChangeReserved { holder } => holder.epoch.number,
        _ => view.highest,
    };
    Some(Database { authority, highest, generation: view.generation + 1 })
}

/// Marks the answer that a change was made of as seen.
fn consume(world: &mut World, change: &Change) {
    for order in &mut world.orders {
        let used = match change {
            Change::Demoted { epoch, .. } => order.ask == Ask::Demote && order.epoch.id == *epoch,
            Change::GivenUp => order.ask == Ask::Undemote && order.answer.is_some(),
            Change::Promoted { epoch } | Change::Refused { epoch } => {
                order.ask == Ask::Promote && order.epoch.id == *epoch
            }
            _ => false,
        };
        order.seen |= used;
    }
    // What has been seen is history. Promotions are kept: they may be delivered again.
    world.orders.retain(|order| !order.seen || order.ask == Ask::Promote);
}

fn successors(world: &World, bug: Bug, depth: u64) -> Vec<World> {
    let mut after = Vec::new();
    // The controller.
    for change in changes(world, &world.database, bug, world.database.generation + 10) {
        let Some(database) = apply(&world.database, &change) else { continue };
        let mut next = World { database, ..world.clone() };
        consume(&mut next, &change);
        after.push(next);
    }
    if bug == Bug::UnplannedWithoutProof
        && let Authority::Held { holder } = &world.database.authority
        && world.database.highest < NUMBER_MAX
    {
        let number = world.database.highest + 1;
        let side = other(holder.side);
        let promoted = Holder { epoch: epoch(number, number + 50, None), side, branch: None };
        let mut next = world.clone();
        next.database.highest = number;
        next.database.authority =
            Authority::Promoting { former: *holder, proof: None, holder: promoted };
        after.push(next);
    }
    for (ask, side, epoch) in issues(world, &world.database) {
        let mut next = world.clone();
        next.issue(ask, side, epoch);
        after.push(next);
    }
    // The second controller: reads at some time, acts on it at any later time.
    if world.stale.is_none() {
        after.push(World { stale: Some(world.database.clone()), ..world.clone() });
    }
    if let Some(view) = &world.stale {
        for change in changes(world, view, bug, view.generation + 30) {
            let Some(database) = apply(view, &change) else { continue };
            let current = view.generation == world.database.generation;
            if current || bug == Bug::NoCompareAndSet {
                let mut next = World { database, stale: None, ..world.clone() };
                consume(&mut next, &change);
                after.push(next);
            }
        }
        // Its orders are rows of the database too, but those that it has read it still hands out.
        if let Authority::Promoting { holder, .. } = &view.authority {
            let mut next = world.clone();
            next.issue(Ask::Promote, holder.side, holder.epoch);
            after.push(next);
        }
    }
    // The sites: any order, at any time. Each is carried out at most once, by the node's ledger;
    // but promotions are safe even for a site that has lost its ledger, by their epoch.
    for (at, order) in world.orders.iter().enumerate() {
        if order.answer.is_none() {
            after.push(carry_out(world, at, bug));
        } else if order.ask == Ask::Promote {
            let mut again = carry_out(world, at, bug);
            again.orders = world.orders.clone();
            after.push(again);
        }
    }
    // An operator takes the power from home, and only then gives a word.
    if !world.home.dead {
        let mut next = world.clone();
        next.home.dead = true;
        after.push(next);
    }
    after.retain(|next| next != world && next.database.generation <= depth);
    after
}

struct Outcome {
    states: usize,
    violation: Option<World>,
    /// Home → recovery → home, and a change of point, were all seen complete.
    reached: [bool; 3],
}

fn explore(bug: Bug) -> Outcome {
    let mut seen = HashSet::from([World::new()]);
    let mut queue = VecDeque::from([World::new()]);
    let mut reached = [false; 3];
    let depth = depth();
    while let Some(world) = queue.pop_front() {
        if world.writers() > 1 {
            return Outcome { states: seen.len(), violation: Some(world), reached };
        }
        if let Authority::Held { holder } = &world.database.authority {
            let at = (holder.side, holder.epoch.number);
            reached[0] |= at.0 == Side::Recovery && world.home.dead;
            reached[1] |= at.0 == Side::Home && at.1 >= 3 && world.home.role == Role::Writable;
            reached[2] |= at.0 == Side::Recovery && at.1 >= 3;
        }
        for next in successors(&world, bug, depth) {
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    Outcome { states: seen.len(), violation: None, reached }
}

#[test]
fn two_sides_never_write_whatever_is_late_repeated_or_crashes() {
    let outcome = explore(Bug::None);
    eprintln!("{} states", outcome.states);
    assert!(outcome.violation.is_none(), "{:#?}", outcome.violation);
    assert_eq!(outcome.reached, [true; 3], "failover, failback, change of point");
    assert!(outcome.states > 10_000, "the model is smaller than it was meant to be");
}

#[test]
fn every_seeded_bug_is_found() {
    for bug in [
        Bug::PromoteOnTimeout,
        Bug::UnplannedWithoutProof,
        Bug::SiteIgnoresEpoch,
        Bug::UndoNotAwaited,
        Bug::NoCompareAndSet,
    ] {
        assert!(explore(bug).violation.is_some(), "{bug:?} went unnoticed");
    }
}
