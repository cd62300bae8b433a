//! The whole cycle, at random, against the naive oracle: replicate, view, test, fail over, change
//! the point, commit, fold, come home, follow, and again. Guards P3, P4 and P6.
//!
//! `SEED=n` repeats one run, `LANDFALL_SEEDS=n` makes more of them.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::SimMedium;
use landfall_testkit::Rng;
use landfall_types::{BranchId, ByteRange, DiskIndex, Incarnation, Lsn, Record, UnixNanos};
use landfall_volume::{
    Branch, ImageOwner, NewAuthority, NewTestBranch, OLD_DISKS, PointSelector, Replica,
    branch_incarnation,
};
use std::sync::Arc;

/// Block of the comparison towards home.
const BLOCK: u64 = 1024;

struct Cycle {
    rng: Rng,
    medium: SimMedium,
    replica: Replica,
    /// What the replica's log holds, and what it should show.
    oracle: Producer,
    epochs: u64,
    names: u64,
    /// First position that can be chosen.
    from: Lsn,
}

#[test]
fn the_cycle_agrees_with_the_oracle() {
    let seed = landfall_testkit::seed("the_cycle_agrees_with_the_oracle");
    let runs: u64 = std::env::var("LANDFALL_SEEDS").map_or(25, |n| n.parse().expect("a number"));
    for run in 0..runs {
        eprintln!("run {run}: SEED={}", seed + run);
        let medium = SimMedium::new(512);
        let (replica, oracle) = protected(&medium);
        let mut cycle = Cycle {
            rng: Rng::new(seed + run),
            medium,
            replica,
            from: oracle.lsn(),
            oracle,
            epochs: 1,
            names: 0,
        };
        for _ in 0..2 {
            cycle.replicate();
            cycle.fail_over();
            cycle.come_home();
        }
        cycle.replicate();
    }
}

impl Cycle {
    fn reopen(&mut self) {
        self.medium.root().sync().expect("synced");
        let durable =
            if self.rng.one_in(2) { self.medium.fork_durable() } else { self.medium.fork() };
        self.medium = durable;
        self.replica = open_replica(&self.medium);
    }

    fn legal_point(&mut self) -> Lsn {
        let span = self.oracle.lsn().get() - self.from.get() + 1;
        let any = Lsn::new(self.from.get() + self.rng.below(span));
        self.oracle.newest_legal(self.from, any).unwrap_or(self.from)
    }

    fn replicate(&mut self) {
        let mut tests: Vec<(Arc<Branch>, Content)> = vec![];
        for _ in 0..self.rng.below(60) + 20 {
            match self.rng.below(24) {
                0..=11 => {
                    let from = self.oracle.lsn().next();
                    for _ in 0..self.rng.below(5) {
                        world::record(&mut self.rng, &mut self.oracle);
                    }
                    // Sometimes with records that it has already.
                    let back = self.rng.below(3).min(from.get() - 1 - self.from.get());
                    let from = Lsn::new(from.get() - back);
                    self.replica.ingest(self.oracle.frame(from)).expect("ingested");
                    self.replica.flush().expect("flushed");
                }
                12..=15 => self.check_view(),
                16 | 17 => self.check_verdicts(),
                18 => self.fold(),
                19 => {
                    let point = self.legal_point();
                    let branch = self.test_branch(point);
                    tests.push((branch, self.oracle.content_at(point).clone()));
                }
                20 | 21 => {
                    if let Some((branch, content)) = tests.last_mut() {
                        write_branch(&mut self.rng, branch, content);
                        assert_same(&read_branch(branch), content, "test branch");
                    }
                }
                22 => {
                    if let Some((branch, content)) = tests.pop() {
                        assert_same(&read_branch(&branch), &content, "test branch");
                        let name = branch.entry().name.clone();
                        self.replica.drop_test_branch(&name).expect("dropped");
                    }
                }
                _ => {
                    self.reopen();
                    for (branch, content) in &mut tests {
                        let name = branch.entry().name.clone();
                        *branch = self.replica.branch(&name).expect("served again");
                        assert_same(&read_branch(branch), content, "test branch after a restart");
                    }
                }
            }
        }
        for (branch, _) in tests {
            self.replica.drop_test_branch(&branch.entry().name).expect("dropped");
        }
        world::settle(&mut self.oracle);
        self.oracle.send(&self.replica);
    }

    fn check_view(&mut self) {
        let point = self.legal_point();
        let view = self.replica.view(&PointSelector::Lsn(point)).expect("legal");
        assert_same(&read_view(&view), self.oracle.content_at(point), "view");
        let (disk, offset, length) = world::range(&mut self.rng);
        let skew = self.rng.below(length);
        let mut part = vec![0; (length - skew) as usize];
        view.read(DiskIndex(disk), offset + skew, &mut part).expect("readable");
        let expected = &self.oracle.content_at(point)[usize::from(disk)];
        assert_eq!(part, expected[(offset + skew) as usize..(offset + length) as usize]);
    }

    /// Every position is offered exactly when the oracle has it legal.
    fn check_verdicts(&mut self) {
        let choices = self.replica.choices().expect("readable");
        for at in self.from.get()..=self.oracle.lsn().get() {
            let at = Lsn::new(at);
            let offered = choices.legal.iter().any(|(first, last)| *first <= at && at <= *last);
            let ranges = &choices.legal;
            assert_eq!(
                offered,
                self.oracle.legal_at(at),
                "{at:?} of {ranges:?} from {:?}",
                self.from
            );
        }
        assert!(choices.points.iter().all(|point| self.oracle.legal_at(point.lsn)));
        let newest = self.oracle.newest_legal(self.from, self.oracle.lsn());
        assert_eq!(self.replica.newest_legal().expect("readable"), newest);
    }

    fn fold(&mut self) {
        let wanted = self.legal_point();
        let pinned = self.replica.fold_limit(wanted).expect("readable");
        let Some(to) = pinned else { return };
        assert!(self.oracle.legal_at(to) && to <= wanted);
        self.replica.fold(to).expect("folded");
        assert_same(&read_images(&self.medium), self.oracle.content_at(to), "image");
        // Pinned by what diverged it may stop before the first position that can be chosen.
        self.from = self.from.max(to);
    }

    fn test_branch(&mut self, point: Lsn) -> Arc<Branch> {
        self.names += 1;
        let new = NewTestBranch {
            id: BranchId::generate(),
            name: format!("test-{}", self.names),
            point: PointSelector::Lsn(point),
        };
        self.replica.test_branch(&new).expect("made")
    }

    fn promote(&mut self, point: Lsn) -> (Arc<Branch>, Producer) {
        self.epochs += 1;
        let new = NewAuthority {
            id: BranchId::generate(),
            name: format!("epoch-{}", self.epochs),
            point: PointSelector::Lsn(point),
            epoch: epoch(self.epochs),
        };
        let branch = self.replica.promote(&new).expect("promoted");
        let incarnation = branch_incarnation(branch.entry().log);
        let oracle = self.oracle.fork(point, epoch(self.epochs), incarnation);
        assert_same(&read_branch(&branch), oracle.content(), "fork");
        (branch, oracle)
    }

    fn fail_over(&mut self) {
        self.replica.freeze().expect("frozen");
        let point = self.legal_point();
        let (mut branch, mut oracle) = self.promote(point);
        let mut content = oracle.content().clone();
        for _ in 0..self.rng.below(3) {
            for _ in 0..self.rng.below(10) {
                write_branch(&mut self.rng, &branch, &mut content);
            }
            let lost = (branch.entry().name.clone(), content);
            let point = self.legal_point();
            (branch, oracle) = self.promote(point);
            content = oracle.content().clone();
            let view = self.replica.divergence_view(&lost.0).expect("readable");
            assert_same(&read_view(&view), &lost.1, "divergence");
        }
        for _ in 0..self.rng.below(20) {
            write_branch(&mut self.rng, &branch, &mut content);
            if self.rng.one_in(8) {
                self.reopen();
                branch = self.replica.authority().expect("served again");
                assert_same(&read_branch(&branch), &content, "branch after a restart");
            }
        }
        assert_same(&read_branch(&branch), &content, "branch");
        let old = self.oracle.content().clone();
        let fork = branch.entry().fork;
        let old_end = self.oracle.lsn();
        self.replica.commit().expect("committed");
        if old_end > fork && self.rng.one_in(2) {
            let name = self
                .replica
                .status()
                .expect("status")
                .divergence
                .last()
                .expect("kept")
                .name
                .clone();
            let view = self.replica.divergence_view(&name).expect("readable");
            assert_same(&read_view(&view), &old, "old log's end");
        }
        let gone = self.replica.view(&PointSelector::Lsn(fork.prev()));
        assert!(gone.is_err() || fork == Lsn::ZERO, "older points can't be chosen");
        self.from = fork;
        self.oracle = follow_log(oracle, &branch);
        assert_same(self.oracle.content(), &content, "branch's log");
        if self.rng.one_in(2) {
            let names: Vec<String> = self
                .replica
                .status()
                .expect("status")
                .divergence
                .iter()
                .filter(|d| !d.discarded)
                .map(|d| d.name.clone())
                .collect();
            self.replica.discard_divergence(&names).expect("discarded");
        }
        self.fold();
    }

    /// Reprotect, failback, and protection again from the shared history.
    fn come_home(&mut self) {
        let branch = self.replica.authority().expect("writable");
        let mut content = self.oracle.content().clone();
        let home_medium = SimMedium::new(512);
        let base = branch.log().durable();
        let old = self.old_disks(&home_medium, &content);
        let mut at_home = config(
            ImageOwner::Foreign,
            self.replica.status().expect("status").lineage,
            base.lsn,
            base.chain,
        );
        at_home.replica = landfall_types::ReplicaId::from_bytes([4; 16]);
        let home = create(&home_medium, at_home);
        home_medium.root().sync().expect("synced");
        branch.append_control(&window_open(7, false)).expect("appended");
        for (disk, size) in (0..).zip(DISKS) {
            for start in (0..size).step_by(BLOCK as usize) {
                if self.rng.one_in(3) {
                    write_branch(&mut self.rng, &branch, &mut content);
                }
                carry(&branch, &home);
                equalise(&branch, &home, disk, ByteRange { start, end: size.min(start + BLOCK) });
            }
        }
        branch.append_control(&window_close(7, true)).expect("appended");
        branch.append_control(&marker(1, None)).expect("appended");
        carry(&branch, &home);
        assert_same(&read_images(&home_medium), &old, "home's disks are untouched (T-15)");
        let view = home.view(&PointSelector::Newest).expect("legal");
        assert_same(&read_view(&view), &content, "home's first point");
        drop(view);
        for _ in 0..self.rng.below(5) {
            write_branch(&mut self.rng, &branch, &mut content);
        }
        let receipt = self.replica.demote(UnixNanos(5)).expect("demoted");
        carry(&branch, &home);
        home.freeze().expect("frozen");
        home.discard_divergence(&[OLD_DISKS.to_owned()]).expect("by name");
        self.epochs += 1;
        home.release(receipt.lsn, receipt.chain, epoch(self.epochs)).expect("released");
        assert_same(&read_images(&home_medium), &content, "home's disks");
        self.replica.follow(epoch(self.epochs), receipt.lsn, instance()).expect("follows");
        let log = follow_log(self.oracle.clone(), &branch);
        assert_same(log.content(), &content, "branch's log");
        self.oracle = log.fork(receipt.lsn, epoch(self.epochs), Incarnation::new(self.epochs));
        if self.rng.one_in(2) {
            self.reopen();
        }
        self.check_verdicts();
    }

    /// The old disks hold something else here and there.
    fn old_disks(&mut self, medium: &SimMedium, like: &Content) -> Content {
        let mut old = like.clone();
        for _ in 0..self.rng.below(6) {
            let (disk, offset, length) = world::range(&mut self.rng);
            let bytes = world::bytes(&mut self.rng, length);
            old[usize::from(disk)][offset as usize..(offset + length) as usize]
                .copy_from_slice(&bytes);
        }
        for (disk, bytes) in
            config(ImageOwner::Ours, lineage(), Lsn::ZERO, landfall_types::Chain::ROOT)
                .disks
                .iter()
                .zip(&old)
        {
            images(medium).create(&disk.image, disk.geometry).expect("made");
            let device = images(medium).open(&disk.image, ImageOwner::Foreign).expect("opened");
            device.write_at(0, bytes).expect("written");
            device.flush().expect("flushed");
        }
        old
    }
}

/// One random change of a branch, answered.
fn write_branch(rng: &mut Rng, branch: &Branch, content: &mut Content) {
    let (disk, offset, length) = world::range(rng);
    let range = offset as usize..(offset + length) as usize;
    match rng.below(6) {
        0 => {
            branch.zero(DiskIndex(disk), offset, length).expect("answered");
            content[usize::from(disk)][range].fill(0);
        }
        1 => {
            branch.discard(DiskIndex(disk), offset, length).expect("answered");
            content[usize::from(disk)][range].fill(0);
        }
        _ => {
            let data = world::bytes(rng, length);
            branch.write(DiskIndex(disk), offset, &Bytes::from(data.clone())).expect("answered");
            content[usize::from(disk)][range].copy_from_slice(&data);
        }
    }
}

/// Compares one block by hash, and appends what differs with the content of the moment (trap T-2).
fn equalise(branch: &Branch, home: &Replica, disk: u16, range: ByteRange) {
    let theirs = home.hash(DiskIndex(disk), range, BLOCK as u32, Lsn::ZERO).expect("hashed")[0];
    branch
        .append_with(|lsn, newest| {
            let mut ours = vec![0; range.len() as usize];
            newest.read(DiskIndex(disk), range.start, &mut ours)?;
            if blake3::hash(&ours).as_bytes()[..16] == theirs {
                return Ok(vec![]);
            }
            Ok(vec![Record::write(lsn, DiskIndex(disk), range.start, ours.into()).as_catch_up()])
        })
        .expect("appended");
}

/// Carries the branch's durable records home.
fn carry(branch: &Branch, home: &Replica) {
    let log = branch.log();
    log.flush().expect("flushed");
    loop {
        let from = home.flush().expect("flushed").lsn.next();
        let Some(batch) = log.batch(from, 4096).expect("readable") else { return };
        let frame = landfall_volume::Frame {
            epoch: batch.stamp.epoch,
            incarnation: batch.stamp.incarnation,
            source_position: batch.stamp.source_position,
            chain_before: batch.chain_before,
            records: &batch.records,
        };
        home.ingest(frame).expect("ingested");
    }
}

/// Lets the oracle follow what the branch's log took in.
fn follow_log(mut oracle: Producer, branch: &Branch) -> Producer {
    let log = branch.log();
    while let Some(batch) = log.batch(oracle.lsn().next(), usize::MAX).expect("readable") {
        for record in &batch.records {
            oracle.take(record);
        }
        assert_eq!(
            oracle.chain(),
            log.position_at(oracle.lsn()).expect("readable").expect("kept").chain
        );
    }
    oracle
}
