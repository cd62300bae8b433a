//! Room on the retention volume: what is taken when it runs out half-way, and who is refused first
//! (trap T-21).

mod common;

use common::{SECTOR, assert_same, open_replica, protected, read_view};
use landfall_blockdev::sim::{Fault, FaultPlan, SimMedium};
use landfall_blockdev::{Claim, DeviceError, Dir, File, RankNow, RankedDir, Room};
use landfall_types::{BranchId, DiskIndex, Lsn};
use landfall_volume::{ContentError, NewAuthority, NewTestBranch, PointSelector, Replica, View};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An append larger than a segment, at each place where room can run out: what the log took is what
/// the replica shows and what its next sender is told, now and after another opening.
#[test]
fn an_append_that_fails_half_way_is_followed_as_far_as_it_went() {
    let mut partial = 0;
    for nth in 0..40 {
        let medium = SimMedium::new(512);
        let (replica, mut producer) = protected(&medium);
        let before = producer.lsn();
        for number in 0..150_u8 {
            let offset = u64::from(number % 12) * SECTOR;
            producer.write(0, offset, &[number + 1; SECTOR as usize]);
            if number % 4 == 3 {
                producer.marker(u64::from(number), None);
            }
        }
        medium.fail(Some(FaultPlan { fault: Fault::Full, nth, persistent: true }));
        let taken = replica.ingest(producer.frame(before.next()));
        medium.fail(None);
        let received = replica.status().expect("status").received;
        let failed = taken.is_err();
        assert!(failed || received == producer.lsn());
        partial += usize::from(failed && received > before);
        check(&replica, &producer, received);
        // There is room again: the same sender goes on where the replica says that it stands.
        producer.send(&replica);
        check(&replica, &producer, producer.lsn());
        drop(replica);
        check(&open_replica(&medium), &producer, producer.lsn());
        if !failed {
            assert!(partial > 0, "room never ran out half-way");
            return;
        }
    }
    panic!("room never sufficed");
}

fn check(replica: &Replica, producer: &common::Producer, through: Lsn) {
    assert_eq!(replica.flush().expect("what was taken can be flushed").lsn, through);
    let view: View = replica.view(&PointSelector::Lsn(through)).expect("a view");
    assert_same(&read_view(&view), producer.content_at(through), "the newest position");
}

/// A medium that says how much is free.
#[derive(Debug)]
struct Measured(Arc<dyn Dir>, Arc<AtomicU64>);

impl Dir for Measured {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        self.0.create(name)
    }
    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        self.0.open(name)
    }
    fn list(&self) -> Result<Vec<String>, DeviceError> {
        self.0.list()
    }
    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        self.0.rename(from, to)
    }
    fn sync(&self) -> Result<(), DeviceError> {
        self.0.sync()
    }
    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        self.0.subdir(name)
    }
    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        self.0.list_subdirs()
    }
    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        self.0.remove_subdir(name)
    }
    fn sector_bytes(&self) -> u32 {
        self.0.sector_bytes()
    }
    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        Ok(Some(self.1.load(Ordering::SeqCst)))
    }
    fn claim(&self) -> Result<Claim, DeviceError> {
        self.0.claim()
    }
}

const SEGMENT: u64 = common::SEGMENT_BYTES;

/// Writes until the branch's log needs a new segment or two.
fn fill(branch: &landfall_volume::Branch) -> Result<(), ContentError> {
    let data = bytes::Bytes::from(vec![7; 4096]);
    (0..2 * SEGMENT / 4096).try_for_each(|_| branch.write(DiskIndex(0), 0, &data))
}

fn is_full(error: &ContentError) -> bool {
    matches!(error, ContentError::Storage(source) if source.is_full())
}

/// T-21: with less and less room, test branches are refused, then ingest, and the branch with
/// authority last of all; nothing that was acknowledged is lost, and each goes on when there is
/// room.
#[test]
fn t21_the_reserve_is_for_branches_with_authority() {
    let medium = SimMedium::new(512);
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let dir = Arc::new(Measured(medium.root(), Arc::clone(&free)));
    let vault = landfall_volume::Vault::open(dir, common::images(&medium), SEGMENT).expect("opens");
    let reserve = vault.room().reserve_bytes();
    assert!(reserve >= 2 * SEGMENT);
    let (epoch, lineage) = (common::epoch(1), common::lineage());
    let chain = landfall_types::Chain::ROOT;
    let config = common::config(landfall_volume::ImageOwner::Ours, lineage, Lsn::ZERO, chain);
    let replica = vault.create(config).expect("made");
    let mut producer = common::Producer::new(epoch, Lsn::ZERO, chain, common::blank(), false);
    common::first_copy(&replica, &mut producer);
    let test = NewTestBranch {
        id: BranchId::from_bytes([5; 16]),
        name: "test".into(),
        point: PointSelector::Newest,
    };
    let test = replica.test_branch(&test).expect("room");
    fill(&test).expect("room");

    free.store(SEGMENT + 3 * reserve - 1, Ordering::SeqCst);
    assert!(is_full(&fill(&test).expect_err("refused first")));
    for _ in 0..200 {
        producer.write(0, 0, &[3; SECTOR as usize]);
    }
    producer.marker(1, None);
    producer.send(&replica);

    free.store(SEGMENT + reserve - 1, Ordering::SeqCst);
    let acknowledged = producer.lsn();
    for _ in 0..400 {
        producer.write(0, 0, &[4; SECTOR as usize]);
    }
    let refused = replica.ingest(producer.frame(acknowledged.next())).expect_err("refused next");
    let landfall_volume::IngestError::Storage(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.code(), "retention-full");
    assert!(replica.flush().expect("what is in can be flushed").lsn >= acknowledged);

    let new = NewAuthority {
        id: BranchId::from_bytes([6; 16]),
        name: "epoch-2".into(),
        point: PointSelector::Newest,
        epoch: common::epoch(2),
    };
    replica.freeze().expect("frozen");
    let branch = replica.promote(&new).expect("a failover has the reserve");
    fill(&branch).expect("and its writes have");
    free.store(SEGMENT - 1, Ordering::SeqCst);
    assert!(is_full(&fill(&branch).expect_err("nothing is left")));
    free.store(u64::MAX, Ordering::SeqCst);
    fill(&branch).expect("goes on by itself");
    fill(&test).expect("goes on by itself");
}

/// Room by rank holds for whatever lies in the directory, and changes with the rank.
#[test]
fn a_rank_that_rises_gets_more() {
    let medium = SimMedium::new(512);
    let free = Arc::new(AtomicU64::new(1000));
    let dir: Arc<dyn Dir> = Arc::new(Measured(medium.root(), free));
    let room = Room::new(Arc::clone(&dir), 500);
    let rank: RankNow = Arc::new(|| landfall_blockdev::Rank::Ingest);
    let ranked = RankedDir::new(dir, room, rank);
    let file = ranked.create("a").expect("create");
    assert!(file.allocate(0, 501).expect_err("into the reserve").is_full());
    file.allocate(0, 500).expect("not into the reserve");
    let higher = ranked.ranked(Arc::new(|| landfall_blockdev::Rank::Authority)).expect("ranked");
    higher.open("a").and_then(|file| file.allocate(0, 1500)).expect("the reserve");
}
