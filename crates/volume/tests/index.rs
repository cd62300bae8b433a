//! The index on disk against the naive oracle: views at any position while records come, runs are
//! written and merged, the image is folded and branches are written; power cuts at every write of
//! the index; runs that are damaged or gone.

mod common;

use common::*;
use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};
use landfall_testkit::{Rng, seed};
use landfall_types::{BranchId, DiskIndex, Lsn, Record};
use landfall_volume::{
    Branch, IndexOptions, IndexPool, NewTestBranch, PointSelector, Replica, View,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One random data record or marker.
fn random_record(producer: &mut Producer, rng: &mut Rng) {
    let disk = u16::try_from(rng.below(2)).expect("small");
    let sectors = DISKS[usize::from(disk)] / SECTOR;
    let start = rng.below(sectors);
    let length = 1 + rng.below(sectors - start);
    let (start, length) = (start * SECTOR, length * SECTOR);
    let value = u8::try_from(producer.lsn().get() % 251).expect("small");
    match rng.below(8) {
        0 => drop(producer.marker(producer.lsn().get(), None)),
        1 => drop(producer.push(|lsn| Record::zero(lsn, DiskIndex(disk), start, length))),
        2 => drop(producer.push(|lsn| Record::discard(lsn, DiskIndex(disk), start, length))),
        _ => {
            let data = vec![value; usize::try_from(length).expect("small")];
            producer.write(disk, start, &data);
        }
    }
}

/// A branch and what it must hold.
struct Written {
    branch: Arc<Branch>,
    content: Content,
    /// Where it forked: the image does not pass it.
    name: String,
}

impl Written {
    fn write(&mut self, rng: &mut Rng) {
        let start = rng.below(DISKS[0] / SECTOR) * SECTOR;
        let value = u8::try_from(rng.below(256)).expect("small");
        let data = vec![value; 512];
        self.branch.write(DiskIndex(0), start, &data.clone().into()).expect("written");
        let start = usize::try_from(start).expect("small");
        self.content[0][start..start + 512].copy_from_slice(&data);
    }
}

struct Model {
    medium: SimMedium,
    replica: Replica,
    producer: Producer,
    views: Vec<View>,
    branches: Vec<Written>,
}

impl Model {
    fn step(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0..5 => {
                for _ in 0..=rng.below(9) {
                    random_record(&mut self.producer, rng);
                }
                self.producer.send(&self.replica);
            }
            5 => {
                let choice = self.any_point(rng);
                self.views.push(self.replica.view(&choice).expect("offered"));
                if self.views.len() > 4 {
                    self.views.remove(0);
                }
            }
            6 if self.branches.len() < 3 => {
                let point = self.any_point(rng);
                let PointSelector::Lsn(fork) = point else { return };
                let name = format!("b{}", rng.next_u64());
                let order = NewTestBranch { id: BranchId::generate(), name, point };
                let branch = self.replica.test_branch(&order).expect("made");
                let content = self.producer.content_at(fork).clone();
                self.branches.push(Written { branch, content, name: order.name });
            }
            7 if !self.branches.is_empty() => {
                let gone = self.branches.remove(0);
                self.replica.drop_test_branch(&gone.name).expect("dropped");
            }
            8 => {
                if let Some(to) = self.replica.fold_limit(self.producer.lsn()).expect("readable") {
                    self.replica.fold(to).expect("folded");
                }
            }
            9 if rng.one_in(3) => self.reopen(),
            _ => self.branches.iter_mut().for_each(|branch| branch.write(rng)),
        }
        self.check();
    }

    fn any_point(&self, rng: &mut Rng) -> PointSelector {
        let legal = self.replica.choices().expect("readable").legal;
        let (first, last) = legal[usize::try_from(rng.below(legal.len() as u64)).expect("small")];
        PointSelector::Lsn(first.plus(rng.below(last.get() - first.get() + 1)))
    }

    /// Views do not outlive the process; branches do.
    fn reopen(&mut self) {
        self.views.clear();
        self.replica.flush().expect("flushed");
        self.replica = open_replica(&self.medium);
        for written in &mut self.branches {
            written.branch = self.replica.branch(&written.name).expect("kept");
        }
    }

    fn check(&self) {
        for view in &self.views {
            assert_same(&read_view(view), self.producer.content_at(view.at()), "a view");
        }
        for Written { branch, content, name } in &self.branches {
            assert_same(&read_branch(branch), content, name);
        }
        let newest = self.replica.view(&PointSelector::Newest).expect("offered");
        assert_same(&read_view(&newest), self.producer.content_at(newest.at()), "the newest");
    }
}

/// Guards P3, P4. Every step is checked against the oracle.
#[test]
fn views_at_any_position_show_what_the_oracle_says() {
    let first = seed("views_at_any_position_show_what_the_oracle_says");
    for n in 0..6 {
        let mut rng = Rng::new(first.wrapping_add(n));
        let medium = SimMedium::new(512);
        let (replica, producer) = protected(&medium);
        let mut model = Model { medium, replica, producer, views: vec![], branches: vec![] };
        for _ in 0..80 {
            model.step(&mut rng);
        }
    }
}

/// The same while the thread merges, and others read and fold.
#[test]
fn views_are_exact_while_runs_are_merged_by_a_thread() {
    let mut rng = Rng::new(seed("views_are_exact_while_runs_are_merged_by_a_thread"));
    let medium = SimMedium::new(512);
    let pool = IndexPool::new(IndexOptions {
        tail_records: 4,
        page_cache_bytes: 64 << 10,
        chunk_cache_bytes: 8 << 10,
        background: true,
    });
    drop(protected(&medium));
    let opened =
        Replica::open_with(replica_dir(&medium), images(&medium), SEGMENT_BYTES, pool.clone());
    let replica = opened.expect("opens").expect("was complete");
    let mut producer = {
        // The same history again, for the oracle.
        let other = SimMedium::new(512);
        protected(&other).1
    };
    let start = producer.lsn();
    for _ in 0..600 {
        random_record(&mut producer, &mut rng);
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in (start.get()..producer.lsn().get()).step_by(6) {
                let (from, to) = (Lsn::new(at).next(), producer.lsn().min(Lsn::new(at + 6)));
                replica.ingest(producer.frame_to(from, to)).expect("ingested");
                replica.flush().expect("flushed");
                if at % 60 == 0
                    && let Some(to) = replica.fold_limit(Lsn::new(at - 30)).expect("readable")
                {
                    // A view may be opened between the two, and pin an earlier position.
                    match replica.fold(to) {
                        Ok(_) | Err(landfall_volume::FoldError::Pinned { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            ended.store(true, Ordering::Release);
        });
        for reader in 0..2 {
            let (replica, producer, ended) = (&replica, &producer, &ended);
            let mut rng = Rng::new(rng.next_u64() + reader);
            scope.spawn(move || {
                let mut last = false;
                while !last {
                    last = ended.load(Ordering::Acquire);
                    let legal = replica.choices().expect("readable").legal;
                    let Some((first, end)) = legal.last() else { continue };
                    let at = first.plus(rng.below(end.get() - first.get() + 1));
                    // Folded past it meanwhile.
                    let Ok(view) = replica.view(&PointSelector::Lsn(at)) else { continue };
                    assert_same(&read_view(&view), producer.content_at(at), "a view");
                }
            });
        }
    });
    let newest = replica.view(&PointSelector::Newest).expect("offered");
    assert_same(&read_view(&newest), producer.content(), "the newest");
    assert!(replica.indexes().iter().any(|index| index.runs > 0), "runs were written");
    assert!(pool.cached_bytes() <= (64 << 10) + (8 << 10), "the budget holds");
}

/// Guards P2, P4: whatever a cut leaves of runs and merges, every position shows what it should.
#[test]
fn a_cut_at_any_write_of_the_index_loses_nothing() {
    let options = match std::env::var_os("LANDFALL_THOROUGH") {
        Some(_) => CutOptions::THOROUGH,
        None => CutOptions { exhaustive_max: 3, masks_random: 6, ..CutOptions::QUICK },
    };
    let mut rng = Rng::new(seed("a_cut_at_any_write_of_the_index_loses_nothing"));
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    let mut durable = vec![producer.lsn()];
    // Eight tails of three records make the first merge.
    for _ in 0..9 {
        for _ in 0..4 {
            random_record(&mut producer, &mut rng);
        }
        producer.send(&replica);
        durable.push(producer.lsn());
        medium.promise();
    }
    assert!(replica.indexes()[0].runs < 9, "something was merged");
    let stat = for_each_power_cut(&medium.trace(), options, |cut| {
        let replica = common::open(&cut.medium).expect("opens").expect("was complete");
        let what = format!("step {} mask {}", cut.step, cut.mask);
        let end = replica.flush().expect("flushed").lsn;
        assert!(end >= durable[cut.promises], "{what}");
        for at in [durable[0], Lsn::new(u64::midpoint(durable[0].get(), end.get())), end] {
            let view = replica.view(&PointSelector::Lsn(at)).expect("offered");
            assert_same(&read_view(&view), producer.content_at(at), &what);
        }
    });
    eprintln!("a_cut_at_any_write_of_the_index_loses_nothing: {stat:?}");
    assert!(stat.cuts > 200);
}

/// A run that rots, while it is in use or between two runs of the process, is made again from the
/// log, and never believed.
#[test]
fn damaged_and_missing_runs_are_made_again() {
    let first = seed("damaged_and_missing_runs_are_made_again");
    for n in 0..12 {
        let mut rng = Rng::new(first.wrapping_add(n));
        let medium = SimMedium::new(512);
        let (replica, mut producer) = protected(&medium);
        for _ in 0..60 {
            random_record(&mut producer, &mut rng);
        }
        producer.send(&replica);
        let reopened = rng.one_in(2);
        let replica = if reopened { open_replica(&medium) } else { replica };
        let indexes = replica_dir(&medium).list_subdirs().expect("listed");
        let name = indexes.iter().find(|name| name.starts_with("index-")).expect("it has runs");
        let dir = replica_dir(&medium).subdir(name).expect("there");
        for run in dir.list().expect("listed") {
            let file = dir.open(&run).expect("there");
            let length = file.len().expect("readable");
            match rng.below(3) {
                0 => {
                    let at = rng.below(length);
                    let mut byte = [0];
                    file.read_at(at, &mut byte).expect("readable");
                    file.write_at(at, &[byte[0] ^ 0x40]).expect("written");
                }
                1 if reopened => dir.remove(&run).expect("removed"),
                _ => {}
            }
        }
        let replica = if rng.one_in(2) {
            drop(replica);
            open_replica(&medium)
        } else {
            replica
        };
        for (first, last) in replica.choices().expect("readable").legal {
            for at in first.get()..=last.get() {
                let view = replica.view(&PointSelector::Lsn(Lsn::new(at))).expect("offered");
                assert_same(&read_view(&view), producer.content_at(view.at()), "a view");
            }
        }
    }
}
