//! Retention on a master target: policies and notes by order, over restarts, and what a full volume
//! makes of it. Guards P5; T-6, T-21.

mod common;

use common::{Machine, Site, expect_code};
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::Points;
use landfall_api_types::retention::Note;
use landfall_pki::Role;
use landfall_transport::testing::Fleet;
use landfall_types::{Lsn, RetentionPolicy};

async fn points(site: &Site, machine: &Machine) -> Points {
    match site.order(Order::MtPoints { replica: machine.replica }).await {
        OrderOutcome::Points(points) => points,
        other => panic!("{other:?}"),
    }
}

fn note(machine: &Machine, lsn: Lsn, note: Note) -> Order {
    Order::MtNote { replica: machine.replica, lsn, note, by: "kim".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_notes_outlive_a_restart() {
    let fleet = Fleet::new();
    let mut site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    machine.write(0, 0, 1, 4096);
    let early = machine.marker();
    machine.write(0, 4096, 2, 4096);
    let late = machine.marker();
    machine.send(&site).await;

    let policy = RetentionPolicy { size_bytes: Some(1 << 30), ..RetentionPolicy::for_seconds(77) };
    let order = Order::MtPolicy { replica: machine.replica, policy: policy.clone() };
    site.order(order.clone()).await;
    site.order(order).await;
    let never = RetentionPolicy::for_seconds(0);
    let never = Order::MtPolicy { replica: machine.replica, policy: never };
    expect_code(site.try_order(never).await, "bad-request");
    site.order(note(&machine, early, Note::Pin { for_s: None })).await;
    site.order(note(&machine, late, Note::Name { name: Some("late".into()) })).await;
    expect_code(
        site.try_order(note(&machine, early, Note::Name { name: Some("late".into()) })).await,
        "name-taken",
    );
    expect_code(
        site.try_order(note(&machine, early.next(), Note::Pin { for_s: None })).await,
        "no-such-point",
    );
    for _ in 0..2 {
        let all = points(&site, &machine).await;
        let pinned: Vec<Lsn> =
            all.points.iter().filter(|point| point.pinned).map(|point| point.lsn).collect();
        assert_eq!(pinned, [early]);
        let named = all.points.iter().find(|point| point.name.as_deref() == Some("late"));
        assert_eq!(named.map(|point| point.lsn), Some(late));
        let report = site.report(machine.replica).await.retention.expect("told");
        assert_eq!((report.policy, report.pinned), (policy.clone(), 1));
        let holds = site.order(Order::MtHolds { replica: machine.replica }).await;
        let OrderOutcome::Holds { holds } = holds else { panic!("{holds:?}") };
        assert_eq!(
            holds.iter().map(|hold| (hold.kind.as_str(), hold.lsn)).collect::<Vec<_>>(),
            [("pin", early)]
        );
        site.restart().await;
    }
    let by_name = machine.test_branch("try", PointChoice::Name("late".into()));
    let OrderOutcome::Branch(branch) = site.order(by_name).await else { panic!("no branch") };
    assert_eq!(branch.fork, late);
}

/// P5, with maintenance and running ingest: a limit of size holds, the loss is told before it
/// begins and after, and the newest point stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_limit_is_kept_to_while_data_comes_in() {
    let fleet = Fleet::new();
    let site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    let limit = 8 << 20;
    let policy =
        RetentionPolicy { size_bytes: Some(limit), ..RetentionPolicy::for_seconds(86_400) };
    site.order(Order::MtPolicy { replica: machine.replica, policy }).await;
    let kept = site.keep_in_shape();
    let mut warned = false;
    let shortened = async {
        loop {
            for n in 0..4 {
                machine.write(0, n * 262_144, n as u8, 262_144);
            }
            machine.marker();
            machine.send(&site).await;
            let conditions = site.conditions().await;
            let told = |code: &str| conditions.iter().any(|one| one.error.code == code);
            warned |= told("retention-short");
            if told("retention-shortened") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), shortened).await.expect("shortened");
    assert!(warned, "it was not told beforehand");
    let all = points(&site, &machine).await;
    assert_eq!(all.points.last().map(|point| point.lsn), Some(machine.lsn()));
    let below = |report: &landfall_api_types::node::ReplicaReport| {
        // Segments that are being written and spare ones come on top.
        report.journal_bytes <= limit + (4 << 20)
    };
    site.wait_until(machine.replica, below).await;
    kept.cancel();
}
