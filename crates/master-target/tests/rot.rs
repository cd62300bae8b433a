//! What rots in an image on disk: the scrub or a reader finds it, the source is asked for exactly
//! that at its next session, which begins at once, and its answer makes later points good. Guards
//! P5; T-20.

mod common;

use common::{Home, Machine, Site, branch_of};
use landfall_api_types::alert::Severity;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::request::PointChoice;
use landfall_nbd::Client;
use landfall_pki::Role;
use landfall_repl::{Durable, LogSink, Refusal};
use landfall_transport::testing::Fleet;
use landfall_types::{ByteRange, DiskIndex, ReplicaId};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
    file.sync_all().expect("synced");
}

/// Waits until the checksums of all images were taken, by the scrub that begins with the process.
async fn until_scrubbed(site: &Site, replica: ReplicaId) {
    let disk = common::DISK_BYTES / 4096;
    let bytes = disk.div_ceil(1016) * 4096;
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..1500 {
        interval.tick().await;
        let there = (0..2).all(|disk| {
            let path = site.replica_dir(replica).join(format!("sums-{disk}"));
            std::fs::metadata(path).is_ok_and(|meta| meta.len() == bytes)
        });
        if there {
            return;
        }
    }
    panic!("no scrub within 30 s");
}

async fn rot_told(site: &Site) -> Option<(Severity, String)> {
    let conditions = site.conditions().await.into_iter();
    let corrupt = conditions.filter(|one| one.error.code == "corrupt");
    corrupt.map(|one| (one.severity, one.error.cause)).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_the_source_is_asked_for_what_has_rotted() {
    let fleet = Fleet::new();
    let mut site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    machine.write(0, 0, 1, 8192);
    let early = machine.marker();
    machine.send(&site).await;
    site.restart().await;
    machine.hang_up();
    let keeping = site.keep_in_shape();
    until_scrubbed(&site, machine.replica).await;

    // One block lies under a record of the journal, of another a half does, and one is bare.
    machine.write(0, 12_288, 2, 2048);
    machine.send(&site).await;
    let image = site.image(machine.replica, 0);
    for at in [4096, 12_288 + 5, 65_536 + 77] {
        flip(&image, at);
    }
    let session = machine.open_session(&site).await;
    assert_eq!(session.1.rotten, [], "nobody has met it");
    assert_eq!(rot_told(&site).await, None);
    let view = Client::connect_unix(&site.socket(), "web/0@latest").await.expect("a view");
    for at in (0..common::DISK_BYTES).step_by(4096) {
        let sound = view.read(at, 4096).await.is_ok();
        assert_eq!(sound, ![12_288, 65_536].contains(&at), "at {at}: rot is never served");
    }
    view.disconnect().await;
    // The session that is open ends, although nothing was sent in it.
    let waiting = Durable { here: machine.lsn(), at_target: machine.lsn() };
    let ended = site.sink().durable_beyond(session.0, waiting).await;
    assert!(matches!(ended, Err(Refusal::Unavailable { .. })), "{ended:?}: it comes again at once");
    let refused = site.sink().flush(session.0).await;
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "{refused:?}");
    let (severity, cause) = rot_told(&site).await.expect("told");
    assert_eq!(severity, Severity::Critical, "{cause}");

    let (token, position) = machine.open_session(&site).await;
    let range = |start, end| (DiskIndex(0), ByteRange { start, end });
    assert_eq!(position.rotten, [range(12_288 + 2048, 16_384), range(65_536, 69_632)]);
    // What the source answers is of now: the machine has written meanwhile.
    machine.answer(&position.rotten);
    machine.send(&site).await;
    let good = machine.lsn();
    let waiting = Durable { here: good, at_target: good };
    let ended = site.sink().durable_beyond(token, waiting).await;
    assert!(matches!(ended, Err(Refusal::Unavailable { .. })), "{ended:?}: answered");
    assert_eq!(machine.open_session(&site).await.1.rotten, []);

    let view = Client::connect_unix(&site.socket(), "web/0@latest").await.expect("a view");
    assert!(view.read(0, common::DISK_BYTES as u32).await.expect("whole") == machine.disks[0]);
    view.disconnect().await;
    let (severity, cause) = rot_told(&site).await.expect("named");
    assert_eq!(severity, Severity::Warning, "{cause}");
    let before = format!("web/0@{}", early.get());
    let before = Client::connect_unix(&site.socket(), &before).await.expect("a view");
    before.read(65_536, 4096).await.expect_err("history is not repaired with the present");
    assert_eq!(before.read(0, 8192).await.expect("elsewhere"), vec![1; 8192]);
    before.disconnect().await;
    let points = site.order(Order::MtPoints { replica: machine.replica }).await;
    let OrderOutcome::Points(points) = points else { panic!("{points:?}") };
    assert!(points.points.iter().all(|one| one.corrupt == (one.lsn < good)), "{points:?}");
    keeping.cancel();
}

/// The same on the way home: there a branch is the source, and every position stays a point.
#[tokio::test(flavor = "multi_thread")]
async fn t20_a_branch_sends_again_what_has_rotted_at_home() {
    let fleet = Fleet::new();
    let recovery = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    recovery.order(machine.create()).await;
    machine.first_copy(&recovery).await;
    machine.write(0, 0, 1, 8192);
    machine.marker();
    machine.send(&recovery).await;
    recovery.order(Order::MtFreeze { replica: machine.replica }).await;
    branch_of(recovery.order(machine.promote(2, PointChoice::Latest)).await);
    recovery.order(Order::MtCommit { replica: machine.replica }).await;
    let home = Home::open(&fleet.member(Role::MasterTarget), &machine.disks).await;
    let base = recovery.position(Order::MtReverseBase { replica: machine.replica }).await;
    home.site.order(home.create(&machine, &base)).await;
    let start = |home: &Home| Order::MtReverseStart {
        replica: machine.replica,
        to: home.replica,
        next_hop: home.site.address.clone(),
        instance: home.instance,
    };
    recovery.order(start(&home)).await;
    let finished = recovery.wait_until(machine.replica, |report| {
        let catch_up = report.reverse.as_ref().and_then(|reverse| reverse.catch_up.as_ref());
        catch_up.is_some_and(|catch_up| catch_up.finished)
    });
    finished.await;
    let keeping = home.site.keep_in_shape();
    until_scrubbed(&home.site, home.replica).await;
    flip(&home.path(0), 65_536);
    let view = Client::connect_unix(&home.site.socket(), "web/0@latest").await.expect("a view");
    view.read(65_536, 4096).await.expect_err("never served");
    view.disconnect().await;
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    let found = loop {
        interval.tick().await;
        match rot_told(&home.site).await {
            Some((Severity::Warning, cause)) => break cause,
            _ => continue,
        }
    };
    assert!(found.contains("4096 bytes"), "{found}");
    let view = Client::connect_unix(&home.site.socket(), "web/0@latest").await.expect("a view");
    assert!(view.read(0, common::DISK_BYTES as u32).await.expect("whole") == machine.disks[0]);
    keeping.cancel();
}
