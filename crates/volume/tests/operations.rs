//! Model test: random operations on a replica (frames, views, test branches, folds, stops of folds,
//! scrubs, restarts, failover, change of point, commit, demotion, reverse, undo) against a naive
//! oracle that keeps the whole content after every record. Guards P2, P3, P4 and P6.
//!
//! `LANDFALL_HISTORIES=n` runs more of them.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::SimMedium;
use landfall_testkit::{Rng, seed};
use landfall_types::{BranchId, DiskIndex, Epoch, Incarnation, Lsn, UnixNanos};
use landfall_volume::{
    FoldError, FoldPace, NewAuthority, NewTestBranch, PointSelector, Replica, Role, Unpaced, View,
    branch_incarnation,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: u64 = 70;

struct Stops(AtomicU64);
impl FoldPace for Stops {
    fn before(&self, _: u64) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
    fn checkpoint_bytes(&self) -> u64 {
        512
    }
}

/// The replica, and what must be true of it.
struct World {
    rng: Rng,
    medium: SimMedium,
    replica: Replica,
    /// The log that points are chosen in.
    main: Producer,
    /// Content of test branches by name.
    tests: BTreeMap<String, Content>,
    /// The branch with authority, before commit: name and log.
    authority: Option<(String, Producer)>,
    epochs: u64,
    names: u64,
}

impl World {
    fn new(mut rng: Rng) -> Self {
        let medium = SimMedium::new(512);
        let (replica, mut main) = protected(&medium);
        main.marker(rng.next_u64() >> 1, None);
        main.send(&replica);
        let (tests, authority) = (BTreeMap::new(), None);
        Self { rng, medium, replica, main, tests, authority, epochs: 1, names: 0 }
    }

    fn role(&self) -> Role {
        self.replica.status().expect("status").role
    }

    fn name(&mut self) -> (BranchId, String) {
        self.names += 1;
        (BranchId::from_bytes([self.names as u8; 16]), format!("b{}", self.names))
    }

    /// A position that may be chosen.
    fn point(&mut self) -> Lsn {
        let legal = self.replica.choices().expect("listed").legal;
        let (first, last) = legal[self.rng.below(legal.len() as u64) as usize];
        Lsn::new(first.get() + self.rng.below(last.get() - first.get() + 1))
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=3 => self.frames(),
            4 | 5 => self.fold(),
            6 => self.test_branch(),
            7 => self.write_branches(),
            8 => self.drop_branch(),
            9 => self.restart(),
            10 => self.undo(),
            11 => {
                drop(self.replica.scrub(&Unpaced, 1).map(|report| assert!(report.rot.is_empty())))
            }
            _ => self.change_role(),
        }
    }

    fn frames(&mut self) {
        if self.role() != Role::Replicating {
            return self.write_authority();
        }
        for _ in 0..1 + self.rng.below(6) {
            world::record(&mut self.rng, &mut self.main);
        }
        if self.rng.one_in(2) {
            world::settle(&mut self.main);
        }
        self.main.send(&self.replica);
    }

    /// To where it may go, now and then stopped within.
    fn fold(&mut self) {
        let wanted = if self.rng.one_in(3) { Lsn::MAX } else { self.point() };
        let Some(to) = self.replica.fold_limit(wanted).expect("readable") else { return };
        let stops = Stops(AtomicU64::new(self.rng.below(6)));
        let folded = if self.rng.one_in(2) {
            self.replica.fold_paced(to, &stops)
        } else {
            self.replica.fold(to)
        };
        assert!(matches!(folded, Ok(_) | Err(FoldError::Stopped)), "{folded:?}");
    }

    /// A fold that can be undone, and the undoing.
    fn undo(&mut self) {
        let open = self.replica.fold_pending().expect("readable").is_some();
        let Some(to) = self.replica.fold_limit(Lsn::MAX).expect("readable").filter(|_| !open)
        else {
            return;
        };
        let before = read_images(&self.medium);
        self.replica.fold_with_undo(to).expect("folded");
        self.check();
        self.replica.undo().expect("nobody else wrote");
        assert_same(&read_images(&self.medium), &before, "put back");
    }

    fn test_branch(&mut self) {
        if self.tests.len() < 3 {
            let ((id, name), at) = (self.name(), self.point());
            let new = NewTestBranch { id, name: name.clone(), point: PointSelector::Lsn(at) };
            self.replica.test_branch(&new).expect("made");
            self.tests.insert(name, self.main.content_at(at).clone());
        }
    }

    fn write_branches(&mut self) {
        for (name, content) in &mut self.tests {
            let (disk, offset, length) = world::range(&mut self.rng);
            let data = world::bytes(&mut self.rng, length);
            let branch = self.replica.branch(name).expect("open");
            branch.write(DiskIndex(disk), offset, &Bytes::from(data.clone())).expect("answered");
            content[usize::from(disk)][offset as usize..][..data.len()].copy_from_slice(&data);
        }
    }

    fn drop_branch(&mut self) {
        if let Some((name, _)) = self.tests.pop_first() {
            self.replica.drop_test_branch(&name).expect("dropped");
        }
    }

    fn restart(&mut self) {
        self.medium.root().sync().expect("synced");
        self.replica = open_replica(&self.medium);
    }

    /// The producer of the log that the machine writes: before or after commit.
    fn write_authority(&mut self) {
        let Some(branch) = self.replica.authority() else { return };
        let (disk, offset, length) = world::range(&mut self.rng);
        let data = world::bytes(&mut self.rng, length);
        branch.write(DiskIndex(disk), offset, &Bytes::from(data.clone())).expect("answered");
        let producer = self.authority.as_mut().map_or(&mut self.main, |(_, producer)| producer);
        producer.write(disk, offset, &data);
    }

    fn change_role(&mut self) {
        match self.role() {
            Role::Replicating if self.rng.one_in(3) => drop(self.replica.freeze().expect("frozen")),
            Role::Frozen if self.replica.authority().is_none() && self.demoted() => self.follow(),
            Role::Frozen if self.rng.one_in(3) => {
                self.replica.thaw().expect("nothing was promoted")
            }
            Role::Frozen => self.promote(),
            Role::Writable if self.authority.is_none() => {
                let now = UnixNanos(self.rng.next_u64() >> 1);
                let receipt = self.replica.demote(now).expect("committed");
                self.main.marker(now.0, None);
                assert_eq!((receipt.lsn, receipt.chain), (self.main.lsn(), self.main.chain()));
            }
            Role::Writable if self.rng.one_in(2) => self.promote(),
            Role::Writable => {
                self.replica.commit().expect("committed");
                let (_, producer) = self.authority.take().expect("not committed before");
                self.main = producer;
                // What diverged is kept and readable until it is discarded by name.
                let names: Vec<String> = self.kept_divergence();
                if self.rng.one_in(2) {
                    self.replica.discard_divergence(&names).expect("by name");
                }
            }
            Role::Replicating | Role::Released => {}
        }
    }

    fn demoted(&self) -> bool {
        self.replica.status().expect("status").committed
    }

    fn kept_divergence(&self) -> Vec<String> {
        let all = self.replica.status().expect("status").divergence;
        all.into_iter().filter(|entry| !entry.discarded).map(|entry| entry.name).collect()
    }

    fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        epoch(self.epochs)
    }

    fn promote(&mut self) {
        let ((id, name), at, epoch) = (self.name(), self.point(), self.next_epoch());
        let new = NewAuthority { id, name: name.clone(), point: PointSelector::Lsn(at), epoch };
        let branch = self.replica.promote(&new).expect("promoted");
        let log = branch.log();
        let producer =
            self.main.fork(at, branch.entry().epoch, branch_incarnation(branch.entry().log));
        assert_eq!(log.tail().lsn, at);
        self.authority = Some((name, producer));
    }

    fn follow(&mut self) {
        let epoch = self.next_epoch();
        let fork = self.main.lsn();
        self.replica.follow(epoch, fork, instance()).expect("follows");
        let parent = self.main.epoch.id;
        let epoch = Epoch { parent: Some(parent), ..epoch };
        self.main = self.main.fork(fork, epoch, Incarnation::new(self.epochs * 991));
    }

    /// Everything that is offered is exact.
    fn check(&mut self) {
        let choices = self.replica.choices().expect("listed");
        assert!(choices.corrupt.is_empty());
        let newest = self.replica.flush().expect("flushed").lsn;
        assert_eq!(newest, self.main.lsn(), "what was acknowledged is there");
        for (first, last) in choices.legal {
            let step = 1 + self.rng.below(5);
            for at in (first.get()..=last.get()).step_by(step as usize).chain([last.get()]) {
                let at = Lsn::new(at);
                assert!(self.main.legal_at(at), "{at:?} is no recovery point");
                let view: View = self.replica.view(&PointSelector::Lsn(at)).expect("offered");
                assert_same(&read_view(&view), self.main.content_at(at), "a view");
            }
        }
        for (name, content) in &self.tests {
            assert_same(&read_branch(&self.replica.branch(name).expect("open")), content, name);
        }
        if let Some((name, producer)) = &self.authority {
            let branch = self.replica.branch(name).expect("open");
            assert_same(&read_branch(&branch), producer.content(), name);
        }
        let writable = self.replica.authority().iter().count();
        assert_eq!(writable, usize::from(self.role() == Role::Writable), "one authority");
    }
}

#[test]
fn random_operations_agree_with_the_oracle() {
    let mut rng = Rng::new(seed("random_operations_agree_with_the_oracle"));
    let more = std::env::var("LANDFALL_HISTORIES").ok().and_then(|n| n.parse().ok());
    for _ in 0..more.unwrap_or(25) {
        let mut world = World::new(Rng::new(rng.next_u64()));
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
    }
}
