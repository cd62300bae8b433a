//! Policies, points, alerts and the list of jobs, over real HTTPS. Guards P5, P9; T-18.

mod support;

use landfall_api_types::alert::{Alert, AlertFilter, Condition, Severity};
use landfall_api_types::request::{PointChoice, Protect};
use landfall_api_types::retention::{Note, NotePoint, PointFilter, PutPolicy};
use landfall_api_types::{ApiError, codes};
use landfall_model::Stage;
use landfall_types::{RetentionPolicy, ThinningTier};
use support::{Fleet, MACHINE, lsn, until};

fn days(count: u64) -> PutPolicy {
    let retention = RetentionPolicy::for_seconds(count * 86_400);
    PutPolicy { retention, rpo_s: 60, new: false }
}

fn code<T>(result: Result<T, ApiError>) -> String {
    result.err().expect("refused").code
}

/// The policy that every replica of the machine reports.
async fn in_force(fleet: &Fleet, keep_s: u64, replicas: usize) {
    until("the policy is in force everywhere", async || {
        let kept: Vec<u64> = fleet.world(|world| {
            world.replicas.values().map(|one| one.retention.policy.keep_s).collect()
        });
        (kept.len() == replicas && kept.iter().all(|kept| *kept == keep_s)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_carried_to_every_replica_and_follows_its_changes() {
    let fleet = Fleet::start().await;
    let client = &fleet.client;
    let made = client.put_policy("db", &PutPolicy { new: true, ..days(3) }).await.expect("made");
    assert_eq!((made.name.as_str(), made.rpo_s, made.machines.len()), ("db", 60, 0));
    assert_eq!(
        code(client.put_policy("db", &PutPolicy { new: true, ..days(3) }).await),
        "name-taken"
    );
    let never = PutPolicy { rpo_s: 0, ..days(1) };
    assert_eq!(code(client.put_policy("x", &never).await), "bad-request");
    let mut senseless = days(1);
    senseless.retention.thinning = vec![ThinningTier { every_s: 9, until_age_s: 9 }];
    assert_eq!(code(client.put_policy("x", &senseless).await), "bad-request");
    let names: Vec<String> =
        client.policies().await.expect("listed").into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["default", "db"]);

    let unknown = Protect { policy: Some("nobody".to_owned()), ..Fleet::protect_request() };
    assert_eq!(code(client.protect(&unknown).await), "unknown-policy");
    fleet.protect().await;
    in_force(&fleet, 86_400, 1).await;
    assert_eq!(code(client.assign_policy(MACHINE, "nobody").await), "unknown-policy");
    let assigned = client.assign_policy(MACHINE, "db").await.expect("assigned");
    assert_eq!(assigned.machines, [MACHINE]);
    in_force(&fleet, 3 * 86_400, 1).await;
    assert_eq!(code(client.remove_policy("db").await), "policy-in-use");
    assert_eq!(code(client.remove_policy("default").await), "policy-in-use");
    client.put_policy("db", &days(4)).await.expect("changed");
    in_force(&fleet, 4 * 86_400, 1).await;
    assert_eq!(fleet.machine().await.policy, "db");

    // And at home, from the beginning and later.
    fleet.fail_over().await;
    fleet.done(client.commit(MACHINE).await).await;
    fleet.reprotect().await;
    in_force(&fleet, 4 * 86_400, 2).await;
    client.put_policy("db", &days(5)).await.expect("changed");
    in_force(&fleet, 5 * 86_400, 2).await;
    client.assign_policy(MACHINE, "default").await.expect("assigned");
    client.remove_policy("db").await.expect("nobody has it");
    in_force(&fleet, 86_400, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_filtered_pinned_and_named() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    let client = &fleet.client;
    let note = async |point: PointChoice, note: Note| {
        client.note_point(MACHINE, &NotePoint { point, note }).await
    };
    let pin = Note::Pin { for_s: Some(60) };
    assert!(note(PointChoice::Lsn(lsn(20)), pin.clone()).await.expect("pinned").pinned);
    let name = Note::Name { name: Some("good".to_owned()) };
    let named = note(PointChoice::Time(landfall_types::UnixNanos(15_000)), name).await;
    assert_eq!(named.expect("named").lsn, lsn(10));
    assert_eq!(note(PointChoice::Latest, pin).await.expect("the newest").lsn, lsn(40));
    let long = Note::Name { name: Some("x".repeat(129)) };
    assert_eq!(code(note(PointChoice::Latest, long).await), "bad-request");
    assert_eq!(
        code(note(PointChoice::Name("nobody".to_owned()), Note::Unpin).await),
        "no-such-point"
    );

    let listed = async |filter: PointFilter| {
        let points = client.points_that(MACHINE, &filter).await.expect("listed");
        (points.points.iter().map(|point| point.lsn.get()).collect::<Vec<_>>(), points.more)
    };
    let all = PointFilter::default();
    assert_eq!(listed(all.clone()).await, (vec![10, 20, 40], false));
    assert_eq!(listed(PointFilter { pinned: true, ..all.clone() }).await.0, [20, 40]);
    assert_eq!(listed(PointFilter { named: true, ..all.clone() }).await.0, [10, 20]);
    let page = PointFilter { limit: Some(1), after: Some(lsn(10)), ..all.clone() };
    assert_eq!(listed(page).await, (vec![20], true));
    let kind = Some(landfall_types::MarkerKind::ApplicationConsistent);
    assert_eq!(listed(PointFilter { kind, ..all }).await.0, [0; 0]);
    assert!(!note(PointChoice::Lsn(lsn(20)), Note::Unpin).await.expect("unpinned").pinned);
    assert_eq!(client.holds(MACHINE).await.expect("answered"), []);
}

async fn alerts(fleet: &Fleet, cleared: bool) -> Vec<Alert> {
    let filter = AlertFilter { cleared, ..AlertFilter::default() };
    fleet.client.alerts(&filter).await.expect("listed")
}

/// P5: raised once, told on the machine, kept over a restart of the server, cleared when it has
/// ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_raised_once_and_cleared_when_it_has_ended() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    let id = fleet.machine().await.id;
    assert_eq!(alerts(&fleet, true).await, []);
    let short = |hours: u64| Condition {
        severity: Severity::Warning,
        machine: Some(id),
        error: ApiError::new(&codes::RETENTION_SHORT, format!("about {hours} h of 24 h")),
    };
    fleet.world(|world| world.conditions = vec![short(9)]);
    let raised = until("it is raised", async || alerts(&fleet, false).await.pop()).await;
    assert_eq!((raised.code.as_str(), raised.severity), ("retention-short", Severity::Warning));
    assert_eq!(raised.machine.as_deref(), Some(MACHINE));
    assert_eq!(raised.server.as_deref(), Some("mt-recovery"));
    // Figures change with every report: that is no other alert.
    fleet.world(|world| world.conditions = vec![short(8)]);
    fleet.server.restart(None);
    fleet.client = fleet.server.client();
    fleet.all_in_contact().await;
    let critical = Condition { severity: Severity::Critical, ..short(1) };
    fleet.world(|world| world.conditions = vec![critical]);
    let worse = until("it is worse", async || {
        let all = alerts(&fleet, true).await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().find(|alert| alert.severity == Severity::Critical)
    })
    .await;
    assert_eq!((worse.id, worse.raised), (raised.id, raised.raised));
    fleet.world(|world| world.conditions.clear());
    until("it is cleared", async || alerts(&fleet, false).await.is_empty().then_some(())).await;
    let all = alerts(&fleet, true).await;
    assert_eq!((all.len(), all[0].id), (1, raised.id));
    assert!(all[0].cleared.is_some());
    let history = fleet.machine().await.history;
    let told: Vec<_> =
        history.iter().filter(|entry| entry.event.contains("retention-short")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    let other = AlertFilter { machine: Some("other".to_owned()), ..AlertFilter::default() };
    assert_eq!(fleet.client.alerts(&other).await.expect("listed"), []);
    let none = AlertFilter { limit: Some(0), ..AlertFilter::default() };
    assert_eq!(code(fleet.client.alerts(&none).await), "bad-request");
}

/// A server that is silent raises an alert; what it said last stays raised, because nobody knows
/// that it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_raised_and_clears_nothing() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    let rot = Condition {
        severity: Severity::Critical,
        machine: None,
        error: ApiError::new(&codes::CORRUPT, "LSN 7 to 9"),
    };
    fleet.world(|world| world.conditions = vec![rot]);
    until("it is raised", async || alerts(&fleet, false).await.pop()).await;
    fleet.kill("mt-recovery").await;
    until("silence is raised", async || {
        let all = alerts(&fleet, false).await;
        all.iter().any(|alert| alert.code == "node-silent").then_some(())
    })
    .await;
    fleet.world(|world| world.conditions.clear());
    let codes: Vec<String> = alerts(&fleet, false).await.into_iter().map(|one| one.code).collect();
    assert_eq!(codes, ["node-silent", "corrupt"]);
    fleet.revive("mt-recovery").await;
    until("all is cleared", async || alerts(&fleet, false).await.is_empty().then_some(())).await;
}

/// T-18, RQ-RP-9: the RPO is counted from the newest durable point, also when everybody reports.
#[tokio::test(flavor = "multi_thread")]
async fn an_rpo_above_the_threshold_is_raised() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    // The points of this fleet are 2 s old.
    let strict = PutPolicy { rpo_s: 1, ..days(1) };
    fleet.client.put_policy("default", &strict).await.expect("changed");
    let raised = until("it is raised", async || alerts(&fleet, false).await.pop()).await;
    assert_eq!((raised.code.as_str(), raised.machine.as_deref()), ("rpo-exceeded", Some(MACHINE)));
    fleet.client.put_policy("default", &days(1)).await.expect("changed");
    until("it is cleared", async || alerts(&fleet, false).await.is_empty().then_some(())).await;
}

/// RQ-RP-9, T-18: the warning comes before the threshold is crossed, and names the stage that is to
/// blame and what would help.
#[tokio::test(flavor = "multi_thread")]
async fn an_rpo_that_rises_is_told_with_the_stage_to_blame() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.client.put_policy("default", &PutPolicy { rpo_s: 100, ..days(1) }).await.expect("put");
    // The process server has 53 and has sent 51: what it holds was written 58 s ago and later.
    fleet.world(|world| {
        world.recovery().point_age_s = 70;
        world.timeline = vec![(40, 70), (50, 69), (51, 68), (53, 10), (55, 8)];
    });
    let raised = until("the warning", async || alerts(&fleet, false).await.pop()).await;
    assert_eq!((raised.code.as_str(), raised.severity), ("rpo-rising", Severity::Warning));
    let (cause, cure) = (&raised.cause, &raised.cure);
    assert!(cause.contains("spent in: spool") && cure.contains("landfall bandwidth"), "{raised:?}");
    let machine = fleet.machine().await;
    let spool = machine.rpo_stages.iter().find(|one| one.stage == Stage::Spool).expect("there");
    assert!((56.0..60.0).contains(&spool.s), "{:?}", machine.rpo_stages);
    let total: f64 = machine.rpo_stages.iter().map(|one| one.s).sum();
    assert!((total - machine.rpo_s.expect("a point")).abs() < 5.0, "{machine:?}");
    assert_eq!(machine.rtt_ms, [Some(0.4), Some(40.0)], "RQ-PS-5");
    // Beyond the threshold it is another alert, and the warning ends.
    fleet.world(|world| world.recovery().point_age_s = 400);
    until("it is exceeded", async || {
        let all = alerts(&fleet, false).await;
        (all.len() == 1 && all[0].code == "rpo-exceeded").then_some(())
    })
    .await;
    fleet.world(|world| world.recovery().point_age_s = 2);
    until("all is cleared", async || alerts(&fleet, false).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_page_by_page() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    for name in ["a", "b", "c"] {
        let ask = landfall_api_types::request::Mark {
            name: name.to_owned(),
            consistency: Default::default(),
        };
        fleet.done(fleet.client.mark(MACHINE, &ask).await).await;
    }
    let all = fleet.client.jobs().await.expect("listed");
    assert_eq!(all.len(), 4);
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = fleet.client.jobs_before(before, 3).await.expect("listed");
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(code(fleet.client.jobs_before(None, 0).await), "bad-request");
    let unknown = landfall_types::JobId::generate();
    assert_eq!(code(fleet.client.jobs_before(Some(unknown), 1).await), "unknown-job");
}
