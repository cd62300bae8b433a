//! What is refused, what is waited for, and what is given up.

mod support;

use landfall_api_client::{Client, NodeClient};
use landfall_api_types::request::Failover;
use landfall_api_types::resource::{JobState, StepState};
use landfall_api_types::{ApiError, codes};
use landfall_model::MachineState;
use landfall_pki::{Credentials, Member, Role};
use support::node::enrolment;
use support::server::Server;
use support::{Fleet, MACHINE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrolment_takes_the_right_passphrase_fingerprint_and_key() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = Server::start(&dir.path().join("server"), None);
    let other = Server::start(&dir.path().join("other"), None);
    let good = enrolment("ps-1", &server);
    let at = |name: &str| dir.path().join(name);

    let mut wrong = good.clone();
    wrong.passphrase.push('x');
    let refused = NodeClient::open_or_enroll(&at("a"), &wrong).await.err().expect("refused");
    assert_eq!(refused.code, codes::BAD_PASSPHRASE.name);
    let mut wrong = good.clone();
    wrong.fingerprint = other.ready().fingerprint.parse().expect("hex");
    let refused = NodeClient::open_or_enroll(&at("b"), &wrong).await.err().expect("refused");
    assert_eq!(refused.code, codes::FINGERPRINT_MISMATCH.name);

    let first = NodeClient::open_or_enroll(&at("c"), &good).await.expect("enrolled");
    let again = NodeClient::open_or_enroll(&at("c"), &good).await.expect("opened");
    assert_eq!(first.credentials().identity(), again.credentials().identity());
    let thief = NodeClient::open_or_enroll(&at("d"), &good).await.err().expect("refused");
    assert_eq!(thief.code, codes::NAME_TAKEN.name, "the same name with another key");
    // An answer that was lost: the key is there, the description is not.
    std::fs::remove_file(at("c").join("node.json")).expect("there");
    let repeated = NodeClient::open_or_enroll(&at("c"), &good).await.expect("recognized");
    assert_eq!(first.credentials().identity(), repeated.credentials().identity());

    let stopped = server.ready().url;
    drop(server);
    let mut late = good.clone();
    late.server_url = stopped;
    let refused = NodeClient::open_or_enroll(&at("e"), &late).await.err().expect("refused");
    assert_eq!(refused.code, codes::SERVER_UNREACHABLE.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_certificate_opens_no_operators_endpoint_and_the_other_way_round() {
    let fleet = Fleet::start().await;
    let node = Client::open(&fleet.dir.path().join("ps-home")).expect("credentials");
    for error in [
        node.machines().await.expect_err("refused"),
        node.protect(&Fleet::protect_request()).await.expect_err("refused"),
    ] {
        assert_eq!(error.code, codes::NOT_AUTHORIZED.name);
    }
    let operator = NodeClient::open(&fleet.dir.path().join("server/operator")).expect("open");
    let error = operator.report(&landfall_api_types::node::Report::default()).await;
    assert_eq!(error.expect_err("refused").code, codes::NOT_AUTHORIZED.name);
}

/// A certificate of our own authority for somebody that is not registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unregistered_node_is_refused_though_its_certificate_is_good() {
    let fleet = Fleet::start().await;
    let authority = landfall_pki::FleetAuthority::open_or_create(
        &fleet.dir.path().join("server/ca"),
        std::time::SystemTime::now(),
    );
    let dir = fleet.dir.path().join("ghost");
    let (key, request) = Credentials::key_and_request(&dir).expect("key");
    let id = landfall_types::NodeId::generate();
    let identity = landfall_pki::PeerIdentity { role: Role::Agent, node: id };
    let signed = authority.expect("open").sign(&request, identity, std::time::SystemTime::now());
    let server_url = fleet.server.ready().url;
    let member = Member { id, role: Role::Agent, name: "ghost".to_owned(), server_url };
    Credentials::create(&dir, &member, &key, &signed.expect("sign")).expect("create");
    let ghost = NodeClient::open(&dir).expect("open");
    let refused = ghost.orders(std::time::Duration::ZERO, &[]).await.expect_err("refused");
    assert_eq!(refused.code, codes::NOT_AUTHORIZED.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused_with_the_field() {
    let fleet = Fleet::start().await;
    let refused = async |change: fn(&mut landfall_api_types::request::Protect)| {
        let mut ask = Fleet::protect_request();
        change(&mut ask);
        fleet.client.protect(&ask).await.expect_err("refused").code
    };
    assert_eq!(refused(|ask| ask.name = "../x".to_owned()).await, "bad-request");
    assert_eq!(refused(|ask| ask.disks.clear()).await, "bad-request");
    assert_eq!(refused(|ask| ask.disks[1] = ask.disks[0].clone()).await, "disk-taken");
    assert_eq!(refused(|ask| ask.images = vec!["/x".to_owned()]).await, "bad-request");
    assert_eq!(refused(|ask| ask.marker_interval_ms = Some(99)).await, "bad-request");
    assert_eq!(refused(|ask| ask.agent = "ps-home".to_owned()).await, "unknown-server");
    assert_eq!(refused(|ask| ask.master_target = "nobody".to_owned()).await, "unknown-server");
    let unknown = fleet.client.machine("nothing").await.expect_err("unknown");
    assert_eq!(unknown.code, codes::UNKNOWN_MACHINE.name);
    let unknown = fleet.client.job(landfall_types::JobId::generate()).await.expect_err("unknown");
    assert_eq!(unknown.code, codes::UNKNOWN_JOB.name);
}

/// Guards reliability rule 6.1.1: one job per machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_job_of_the_same_machine_is_refused_while_one_runs() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.world(|world| world.hold("agent-mark"));
    let consistency = landfall_api_types::request::Consistency::Crash;
    let mark = landfall_api_types::request::Mark { name: "a".to_owned(), consistency };
    let job = fleet.client.mark(MACHINE, &mark).await;
    let second = fleet.client.failover(MACHINE, &Fleet::failover_request()).await;
    assert_eq!(second.expect_err("one at a time").code, codes::JOB_RUNNING.name);
    fleet.world(|world| world.let_go("agent-mark"));
    fleet.done(job).await;
}

/// Guards P6: silence is no proof, and neither is an empty word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_without_a_word_is_refused_however_silent_the_source() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.kill("agent").await;
    for word in [None, Some(String::new()), Some("  ".to_owned())] {
        let ask = Failover { source_is_dead: word, ..Fleet::failover_request() };
        let refused = fleet.client.failover(MACHINE, &ask).await.expect_err("no proof");
        assert_eq!(refused.code, codes::NO_FENCE_PROOF.name);
    }
    assert_eq!(fleet.machine().await.state, MachineState::Protected);
}

/// Guards T-14: a relay within reach is drained first; one out of reach is named with what is
/// unknown; and what gets no further asks for a person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_relays_are_drained_named_or_asked_about() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    let relay = fleet.nodes.iter().find(|node| node.name == "ps-home").expect("it runs").id;
    fleet.world(|world| {
        world.home_dies();
        world.spool.insert(relay, 4096);
    });
    let job = fleet.ended(fleet.client.failover(MACHINE, &Fleet::failover_request()).await).await;
    assert_eq!(job.state, JobState::NeedsOperator);
    let error = job.error.expect("why");
    assert_eq!(error.code, codes::RELAY_NOT_DRAINED.name);
    assert!(error.cause.contains("4096 bytes"), "{error}");
    assert_eq!(fleet.world(|world| world.count("mt-freeze")), 0, "drained before frozen");

    // Given up: everything is as before, and another failover may skip it.
    let job = fleet.ended(fleet.client.cancel(MACHINE).await).await;
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(fleet.machine().await.state, MachineState::Protected);
    assert_eq!(fleet.world(|world| world.log.last().cloned()), Some("ps-route".to_owned()));

    fleet.kill("ps-home").await;
    let job = fleet.done(fleet.client.failover(MACHINE, &Fleet::failover_request()).await).await;
    let drain = job.steps.iter().find(|step| step.name == "drain-forward").expect("a step");
    assert_eq!(drain.state, StepState::Skipped);
    assert!(
        drain.detail.contains("out of contact") && drain.detail.contains("4096 bytes"),
        "{drain:?}"
    );
    let told = fleet.machine().await.history;
    assert!(told.iter().any(|entry| entry.event.contains("4096 bytes")), "{told:#?}");
}

/// Guards design section 7: a source that returns with an epoch that is over is fenced before
/// anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_returns_is_fenced() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.kill("agent").await;
    fleet.fail_over().await;
    assert!(!fleet.world(|world| world.agent.fenced));
    fleet.revive("agent").await;
    until("it is fenced", async || fleet.world(|world| world.agent.fenced).then_some(())).await;
    // Reverted to a snapshot of before: told again.
    fleet.world(|world| world.agent.fenced = false);
    until("it is fenced", async || fleet.world(|world| world.agent.fenced).then_some(())).await;
}

/// Guards P8: a silent target is waited for and named; the job goes on when it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_waited_for_and_named() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.world(|world| {
        world.home_dies();
        world.hold("mt-freeze");
    });
    let job = fleet.client.failover(MACHINE, &Fleet::failover_request()).await.expect("accepted");
    until("it waits", async || fleet.world(|world| world.count("ps-drain") > 0).then_some(()))
        .await;
    fleet.kill("mt-recovery").await;
    until("it is named", async || {
        let job = fleet.client.job(job.id).await.ok()?;
        let error = job.error.filter(|_| job.state == JobState::Running)?;
        (error.code == codes::NODE_SILENT.name && error.cause.contains("mt-recovery")).then_some(())
    })
    .await;
    fleet.world(|world| world.let_go("mt-freeze"));
    fleet.revive("mt-recovery").await;
    fleet.done(Ok(job)).await;
}

/// Guards P6, P8: a promotion that the target refuses can be retried, and given up only because the
/// target shows that it did not promote; while the answer is open it can't be given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_promotion_is_retried_or_given_up_and_an_open_one_is_not() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    let refusal = || ApiError::new(&codes::CORRUPT, "a record is damaged");
    fleet.world(|world| {
        world.home_dies();
        world.refuse_next("mt-promote", refusal());
        world.refuse_next("mt-promote", refusal());
    });
    let job = fleet.ended(fleet.client.failover(MACHINE, &Fleet::failover_request()).await).await;
    assert_eq!(
        (job.state, job.error.expect("why").code.as_str()),
        (JobState::NeedsOperator, "corrupt")
    );
    let job = fleet.ended(fleet.client.retry_job(job.id).await).await;
    assert_eq!(job.state, JobState::NeedsOperator, "refused once more");
    let job = fleet.ended(fleet.client.cancel(MACHINE).await).await;
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(fleet.machine().await.state, MachineState::Protected);

    fleet.world(|world| world.hold("mt-promote"));
    let job = fleet.client.failover(MACHINE, &Fleet::failover_request()).await.expect("accepted");
    let at_promotion = async || {
        let job = fleet.client.job(job.id).await.ok()?;
        let step = job.steps.iter().find(|step| step.name == "promote")?;
        (step.state == StepState::Started).then_some(())
    };
    until("the promotion is ordered", at_promotion).await;
    let refused = fleet.client.cancel(MACHINE).await.expect_err("it may have happened");
    assert_eq!(refused.code, codes::WRONG_STATE.name);
    fleet.world(|world| world.let_go("mt-promote"));
    fleet.done(Ok(job)).await;
    // The refused epoch was number 2; it is never used again.
    assert_eq!(fleet.machine().await.epoch.number, 3);
}

/// Guards P8: a protection that can't begin leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protection_that_fails_is_rolled_back_and_can_be_begun_again() {
    let fleet = Fleet::start().await;
    let refusal = ApiError::new(&codes::CAPTURE_UNAVAILABLE, "no eBPF here");
    fleet.world(|world| world.refuse_next("agent-start", refusal));
    let job = fleet.ended(fleet.client.protect(&Fleet::protect_request()).await).await;
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(job.error.expect("why").code, codes::CAPTURE_UNAVAILABLE.name);
    fleet.world(|world| assert!(world.replicas.is_empty() && world.routes.is_empty()));
    assert_eq!(fleet.machine().await.state, MachineState::Unprotected);
    fleet.protect().await;
}

/// Guards P7: a test branch that the target refuses to make must not take another one of its name
/// away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_branch_that_is_refused_drops_nothing() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    let refusal = ApiError::new(&codes::NAME_TAKEN, "there is one of this name");
    fleet.world(|world| world.refuse_next("mt-test-branch", refusal));
    let point = landfall_api_types::request::PointChoice::Latest;
    let ask = landfall_api_types::request::TestFailover { point, name: Some("audit".to_owned()) };
    let job = fleet.ended(fleet.client.test_failover(MACHINE, &ask).await).await;
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(job.error.expect("why").code, codes::NAME_TAKEN.name);
    assert_eq!(fleet.world(|world| world.count("mt-drop-branch")), 0);
}

/// Guards P8: a failback is given up before anything is promoted, and the branch serves again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failback_that_is_given_up_serves_the_branch_again() {
    let fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.fail_over().await;
    fleet.done(fleet.client.commit(MACHINE).await).await;
    fleet.reprotect().await;
    // Home does not get the last records.
    fleet.world(|world| world.home().durable = support::lsn(59));
    let job = fleet.ended(fleet.client.failback(MACHINE).await).await;
    assert_eq!(job.state, JobState::NeedsOperator, "{job:#?}");
    let job = fleet.ended(fleet.client.cancel(MACHINE).await).await;
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(fleet.machine().await.state, MachineState::Reprotected);
    fleet.world(|world| {
        let role = world.recovery().role;
        assert_eq!(role, landfall_api_types::node::ReplicaRole::Writable);
    });
    fleet.world(|world| world.home().durable = support::lsn(60));
    fleet.done(fleet.client.failback(MACHINE).await).await;
}
