//! The cycle between two master targets in one process, over TLS and NBD: first copy, replication,
//! test branch, failover, change of point, commit, way home, failback, and following. Guards P2,
//! P3, P6; T-2, T-10, T-15, T-17.

mod common;

use bytes::Bytes;
use common::{DISK_BYTES, Home, Machine, Site, branch_of, expect_code};
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::request::PointChoice;
use landfall_nbd::Client;
use landfall_pki::Role;
use landfall_transport::testing::Fleet;
use landfall_types::InstanceId;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_goes_out_and_comes_home() {
    let fleet = Fleet::new();
    let mut recovery = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    recovery.order(machine.create()).await;
    recovery.order(machine.create()).await;
    machine.first_copy(&recovery).await;
    machine.write(0, 0, 1, 8192);
    let early = machine.marker();
    machine.write(1, 4096, 2, 4096);
    machine.marker();
    machine.send(&recovery).await;

    // A view and a test branch beside running replication.
    let points = recovery.order(Order::MtPoints { replica: machine.replica }).await;
    let OrderOutcome::Points(points) = points else { panic!("{points:?}") };
    assert_eq!(points.points.last().map(|point| point.lsn), Some(machine.lsn()));
    let socket = recovery.socket();
    let view = Client::connect_unix(&socket, "web/0@latest").await.expect("a view");
    assert_eq!(view.read(0, 8192).await.expect("read"), machine.disks[0][..8192]);
    assert!(view.write(0, Bytes::from_static(b"no")).await.is_err(), "views are read-only");
    view.disconnect().await;
    let test = recovery.order(machine.test_branch("test-1", PointChoice::Lsn(early))).await;
    let test = branch_of(test);
    let export = Client::connect_unix(&socket, &test.exports[1].export).await.expect("served");
    assert_eq!(export.read(4096, 4096).await.expect("read"), vec![0; 4096]);
    export.write(4096, Bytes::from(vec![9; 512])).await.expect("answered");
    machine.write(1, 0, 3, 512);
    machine.send(&recovery).await;
    let clean_up = Order::MtDropBranch { replica: machine.replica, name: "test-1".into() };
    recovery.order(clean_up.clone()).await;
    recovery.order(clean_up).await;
    assert!(export.read(0, 512).await.is_err(), "disconnected");
    expect_code(
        recovery.try_order(machine.test_branch("latest", PointChoice::Latest)).await,
        "bad-request",
    );

    // Failover, another point, latest again, commit.
    recovery.order(Order::MtFreeze { replica: machine.replica }).await;
    let first = branch_of(recovery.order(machine.promote(2, PointChoice::Lsn(early))).await);
    let former = Client::connect_unix(&socket, &first.exports[0].export).await.expect("served");
    former.write(0, Bytes::from(vec![7; 512])).await.expect("has authority");
    let branch = branch_of(recovery.order(machine.promote(3, PointChoice::Latest)).await);
    assert!(former.write(0, Bytes::from(vec![7; 512])).await.is_err(), "revoked");
    expect_code(recovery.try_order(machine.promote(3, PointChoice::Lsn(early))).await, "fenced");
    let disk = Client::connect_unix(&socket, &branch.exports[0].export).await.expect("served");
    disk.write(65_536, Bytes::from(vec![4; 4096])).await.expect("answered");
    machine.disks[0][65_536..69_632].fill(4);
    recovery.order(Order::MtCommit { replica: machine.replica }).await;
    expect_code(
        recovery.try_order(machine.promote(4, PointChoice::Latest)).await,
        "point-change-refused",
    );
    // A client that was cut off is waited for a few seconds, and its branch is held meanwhile.
    drop((disk, former, export));

    // A restart without any configuration server: the branch is served again.
    recovery.restart().await;
    let disk =
        Client::connect_unix(&socket, &branch.exports[0].export).await.expect("served again");
    assert_eq!(disk.read(65_536, 4096).await.expect("read"), vec![4; 4096]);

    // Home's old disks differ here and there.
    let home_fleet = fleet.member(Role::MasterTarget);
    let home = Home::open(&home_fleet, &machine.disks).await;
    home.scribble(0, 200_000, 5_000);
    home.scribble(1, 0, 512);
    let estimate = recovery.order(Order::MtEstimate { replica: machine.replica }).await;
    let OrderOutcome::Estimate { bytes, divergence } = estimate else { panic!("{estimate:?}") };
    assert!(bytes > 0 && bytes < 2 * DISK_BYTES && !divergence.is_empty());
    let base = recovery.position(Order::MtReverseBase { replica: machine.replica }).await;
    let create = home.create(&machine, &base);
    home.site.order(create.clone()).await;
    let to = home.replica;
    let start = Order::MtReverseStart {
        replica: machine.replica,
        to,
        next_hop: home.site.address.clone(),
        instance: home.instance,
    };
    recovery.order(start.clone()).await;
    recovery.order(start).await;
    // The machine goes on writing while both sides are compared.
    for n in 0..64_u64 {
        disk.write(n * 4096, Bytes::from(vec![n as u8 + 100; 2048])).await.expect("answered");
        machine.disks[0][(n * 4096) as usize..][..2048].fill(n as u8 + 100);
    }
    let report = recovery.wait_until(machine.replica, |report| {
        let catch_up = report.reverse.as_ref().and_then(|reverse| reverse.catch_up.as_ref());
        catch_up.is_some_and(|catch_up| catch_up.finished)
    });
    let catch_up = report.await.reverse.and_then(|reverse| reverse.catch_up).expect("finished");
    assert_eq!(catch_up.progress.done_bytes, 2 * DISK_BYTES);
    assert!(catch_up.progress.sent_bytes < DISK_BYTES / 2, "{catch_up:?}");
    assert!(home.untouched(), "T-15: nothing was written to the old disks yet");

    // Failback.
    let receipt = recovery.position(Order::MtDemote { replica: machine.replica }).await;
    assert!(disk.write(0, Bytes::from(vec![1; 512])).await.is_err(), "demoted");
    let at_home = Order::MtAwait { replica: to, lsn: receipt.durable, wait_ms: 20_000 };
    let drained = home.site.position(at_home).await;
    assert_eq!((drained.durable, drained.chain), (receipt.durable, receipt.chain));
    home.site.order(Order::MtFreeze { replica: to }).await;
    let release = machine.release(to, &receipt, 5);
    expect_code(home.site.try_order(release.clone()).await, "divergence-kept");
    let names = vec![landfall_volume::OLD_DISKS.to_owned()];
    home.site.order(Order::MtDiscardDivergence { replica: to, names }).await;
    home.site.order(release.clone()).await;
    home.site.order(release).await;
    assert!(home.disks() == machine.disks, "every block came home");
    let came_home = home.disks();
    let view = Client::connect_unix(&socket, "web/0@latest").await.expect("a view");
    assert!(view.read(0, DISK_BYTES as u32).await.expect("read") == machine.disks[0]);

    // Protection towards the recovery site goes on from the shared history: nothing is copied.
    let follow = Order::MtFollow {
        replica: machine.replica,
        epoch: common::epoch(5),
        fork: receipt.durable,
        instance: InstanceId::from_bytes([77; 16]),
    };
    recovery.order(follow.clone()).await;
    recovery.order(follow).await;
    machine.continue_in(&recovery, &receipt).await;
    machine.write(1, 8192, 5, 1024);
    machine.marker();
    machine.send(&recovery).await;
    let view = Client::connect_unix(&socket, "web/1@latest").await.expect("a view");
    assert!(view.read(0, DISK_BYTES as u32).await.expect("read") == machine.disks[1]);
    let report = recovery.report(machine.replica).await;
    assert_eq!(report.newest_legal, Some(machine.lsn()));
    assert!(report.reverse.is_none() && report.connected);
    home.site.order(Order::MtRemove { replica: to, images: true }).await;
    assert!(home.disks() == came_home, "foreign disks are never removed nor written any more");
}

/// T-11, T-17: an instance without authority and an epoch that is over get no session, whatever
/// they bring.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_authority_are_refused() {
    let fleet = Fleet::new();
    let site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    let mut identity = machine.identity();
    identity.instance = InstanceId::from_bytes([8; 16]);
    assert_eq!(site.refused(&identity).await, "other-instance");
    site.order(Order::MtFreeze { replica: machine.replica }).await;
    assert_eq!(site.refused(&machine.identity()).await, "not-replicating");
    let promote = machine.promote(2, PointChoice::Latest);
    site.order(promote).await;
    assert_eq!(site.refused(&machine.identity()).await, "not-replicating");
    let unknown = Order::MtPoints { replica: landfall_types::ReplicaId::generate() };
    expect_code(site.try_order(unknown).await, "not-found");
    let inspect = Order::MtInspect { disks: vec!["/nonexistent".into()] };
    let OrderOutcome::Inspected { disks } = site.order(inspect).await else { panic!() };
    assert_eq!(disks[0].disk.as_ref().expect_err("no disk").code, "disk-unusable");
}

/// P6: a newer session of the same instance ends the older one; calls of the older are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_supersedes() {
    let fleet = Fleet::new();
    let site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    machine.supersede(&site).await;
}
