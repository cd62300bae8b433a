//! The whole cycle over real HTTPS, with nodes that enforce authority; every command in every
//! state.

mod support;

use landfall_api_types::order::StartMode;
use landfall_api_types::request::{
    ChangePoint, Consistency, DiscardDivergence, Mark, PointChoice, TestCleanUp, TestFailover,
};
use landfall_api_types::resource::{Health, JobOutcome, JobState, StepState};
use landfall_api_types::{ApiError, codes};
use landfall_model::{Command, MachineState, accepts, next};
use support::{Fleet, MACHINE, lsn};

/// Asks for a command; only for those that must be refused.
async fn ask(fleet: &Fleet, command: Command) -> Result<(), ApiError> {
    let client = &fleet.client;
    let point = PointChoice::Latest;
    let name = "test-1".to_owned();
    let job = match command {
        Command::Protect => client.protect(&Fleet::protect_request()).await,
        Command::TestFailover => {
            client.test_failover(MACHINE, &TestFailover { point, name: None }).await
        }
        Command::TestCleanUp => client.test_clean_up(MACHINE, &TestCleanUp { name }).await,
        Command::Failover => client.failover(MACHINE, &Fleet::failover_request()).await,
        Command::ChangePoint => client.change_point(MACHINE, &ChangePoint { point }).await,
        Command::Commit => client.commit(MACHINE).await,
        Command::Reprotect => client.reprotect(MACHINE, &Fleet::reprotect_request()).await,
        Command::Failback => client.failback(MACHINE).await,
        Command::Cancel => client.cancel(MACHINE).await,
        Command::Pause => client.pause(MACHINE).await,
        Command::Resume => client.resume(MACHINE).await,
        Command::Mark => {
            let consistency = Consistency::Crash;
            client.mark(MACHINE, &Mark { name, consistency }).await
        }
        Command::DiscardDivergence => {
            client.discard_divergence(MACHINE, &DiscardDivergence { names: vec![name] }).await
        }
        Command::Disable => client.disable(MACHINE).await,
    };
    job.map(|_| ())
}

/// Guards P9: every command that the state does not accept is refused by the table, with code,
/// cause and cure.
async fn check_refusals(fleet: &Fleet, state: MachineState) {
    assert_eq!(fleet.machine().await.state, state);
    for command in Command::ALL.iter().copied() {
        if next(state, command.into()).is_ok() {
            continue;
        }
        let error = ask(fleet, command).await.expect_err(command.name());
        assert_eq!(error.code, codes::WRONG_STATE.name, "{state} × {command}: {error}");
        assert!(error.cause.contains(state.name()), "{state} × {command}: {error}");
        for accepted in accepts(state) {
            assert!(error.cure.contains(accepted.name()), "{state} × {command}: {}", error.cure);
        }
    }
    for command in [Command::Pause, Command::Resume] {
        if next(state, command.into()).is_ok() {
            let error = ask(fleet, command).await.expect_err("not part of this version");
            assert_eq!(error.code, codes::NOT_SUPPORTED.name);
        }
    }
}

/// The cycle of design section 14.10 from unprotected to unprotected; in each state every refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_cycle_and_every_refusal_on_the_way() {
    let fleet = Fleet::start().await;
    let client = &fleet.client;

    // Out.
    fleet.done(client.protect(&Fleet::protect_request()).await).await;
    check_refusals(&fleet, MachineState::Protecting).await;
    let machine = fleet.machine().await;
    assert_eq!((machine.health, machine.rpo_s), (Health::CatchingUp, None), "no legal point yet");
    fleet.world(support::world::World::first_copy_ends);
    let machine = fleet.in_state(MachineState::Protected).await;
    check_refusals(&fleet, MachineState::Protected).await;
    assert_eq!(machine.path, ["agent", "ps-home", "mt-recovery"]);
    assert!(machine.rpo_s.is_some_and(|rpo| (1.9..60.0).contains(&rpo)), "{:?}", machine.rpo_s);
    assert_eq!((machine.watermarks.captured, machine.watermarks.durable), (lsn(55), lsn(50)));
    fleet
        .done(
            client
                .mark(MACHINE, &Mark { name: "before".to_owned(), consistency: Consistency::Crash })
                .await,
        )
        .await;
    test_branch(&fleet).await;

    fleet.world(|world| {
        world.home_dies();
        world.hold("mt-promote");
    });
    let job = client.failover(MACHINE, &Fleet::failover_request()).await.expect("accepted");
    fleet.in_state(MachineState::FailingOver).await;
    check_refusals(&fleet, MachineState::FailingOver).await;
    fleet.world(|world| world.let_go("mt-promote"));
    let job = fleet.done(Ok(job)).await;
    let Some(JobOutcome::Branch(branch)) = job.outcome else { panic!("no branch: {job:#?}") };
    assert_eq!((branch.fork, branch.name.as_str()), (lsn(40), "epoch-2"));
    check_refusals(&fleet, MachineState::FailedOver).await;

    change_points(&fleet).await;
    fleet.done(client.commit(MACHINE).await).await;
    check_refusals(&fleet, MachineState::Committed).await;

    // Home.
    reprotect(&fleet).await;
    failback(&fleet).await;
    fleet.done(client.commit(MACHINE).await).await;
    check_refusals(&fleet, MachineState::Protecting).await;
    fleet.world(support::world::World::home_log_arrives);
    fleet.in_state(MachineState::Protected).await;

    // And ended.
    fleet.done(client.disable(MACHINE).await).await;
    check_refusals(&fleet, MachineState::Unprotected).await;
    let history = fleet.machine().await.history;
    let told: Vec<_> = history.iter().map(|entry| entry.event.as_str()).collect();
    for part in ["failed over at LSN 40", "it was switched off", "committed", "failed back"] {
        assert!(told.iter().any(|event| event.contains(part)), "{part}: {told:#?}");
    }
    // Guards T-17: what was given once is not given again, over the end of protection too.
    fleet.done(client.protect(&Fleet::protect_request()).await).await;
    assert_eq!(fleet.machine().await.epoch.number, 6);
}

async fn test_branch(fleet: &Fleet) {
    let ask = TestFailover { point: PointChoice::Latest, name: None };
    let job = fleet.done(fleet.client.test_failover(MACHINE, &ask).await).await;
    let Some(JobOutcome::Branch(branch)) = job.outcome else { panic!("no branch: {job:#?}") };
    assert_eq!(branch.name, "test-1");
    support::until("it is reported", async || {
        fleet.machine().await.branches.iter().any(|one| one.name == "test-1").then_some(())
    })
    .await;
    assert_eq!(fleet.machine().await.state, MachineState::Protected, "a test changes no state");
    let clean_up = TestCleanUp { name: "test-1".to_owned() };
    fleet.done(fleet.client.test_clean_up(MACHINE, &clean_up).await).await;
    let unknown = TestCleanUp { name: "test-9".to_owned() };
    let error = fleet.client.test_clean_up(MACHINE, &unknown).await.expect_err("there is none");
    assert_eq!(error.code, codes::UNKNOWN_BRANCH.name);
}

async fn change_points(fleet: &Fleet) {
    let change = async |point| {
        let job = fleet.client.change_point(MACHINE, &ChangePoint { point }).await;
        let job = fleet.done(job).await;
        match job.outcome {
            Some(JobOutcome::Branch(branch)) => (branch.fork, branch.name),
            other => panic!("no branch: {other:?}"),
        }
    };
    assert_eq!(
        change(PointChoice::Name("before".to_owned())).await,
        (lsn(20), "epoch-3".to_owned())
    );
    assert_eq!(change(PointChoice::Latest).await, (lsn(40), "epoch-4".to_owned()));
    let missing = ChangePoint { point: PointChoice::Name("never".to_owned()) };
    let job = fleet.ended(fleet.client.change_point(MACHINE, &missing).await).await;
    assert_eq!(job.state, JobState::RolledBack, "a wrong choice changes nothing");
    assert_eq!(job.error.expect("why").code, codes::NO_SUCH_POINT.name);
    let machine = fleet.machine().await;
    assert_eq!(machine.epoch.number, 4);
    // Each change forks off the log that was replicated, not off the former branch.
    assert_eq!(machine.lineage.entries().len(), 2);
}

async fn reprotect(fleet: &Fleet) {
    let client = &fleet.client;
    let mut ask = Fleet::reprotect_request();
    let estimate = client.reprotect_estimate(MACHINE, &ask).await.expect("an estimate");
    assert_eq!((estimate.estimate_bytes, estimate.total_bytes), (4096, 4 << 20));
    let names: Vec<_> = estimate.divergence.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["epoch-1-after-40", "old-disks"]);
    ask.discard_divergence.pop();
    let error = client.reprotect(MACHINE, &ask).await.expect_err("not all is named");
    assert_eq!(error.code, codes::DIVERGENCE_KEPT.name);
    assert!(error.cause.contains("old-disks"), "{error}");

    // Guards T-9: a smaller disk is refused, and everything is as before.
    fleet.world(|world| world.wrong_disk = true);
    let job = fleet.ended(client.reprotect(MACHINE, &Fleet::reprotect_request()).await).await;
    assert_eq!(job.state, JobState::RolledBack);
    assert_eq!(job.error.expect("why").code, codes::DISK_MISMATCH.name);
    assert_eq!(fleet.machine().await.state, MachineState::Committed);
    fleet.world(|world| world.wrong_disk = false);

    fleet.done(client.reprotect(MACHINE, &Fleet::reprotect_request()).await).await;
    check_refusals(fleet, MachineState::Reprotecting).await;
    fleet.done(client.cancel(MACHINE).await).await;
    assert_eq!(fleet.machine().await.state, MachineState::Committed);

    fleet.done(client.reprotect(MACHINE, &Fleet::reprotect_request()).await).await;
    // Guards T-15: nothing is discarded while the window is open.
    assert_eq!(fleet.world(|world| world.count("mt-discard-divergence")), 0);
    fleet.world(support::world::World::window_home_closes);
    let machine = fleet.in_state(MachineState::Reprotected).await;
    let kept = fleet.world(|world| {
        let both = [world.recovery().divergence.clone(), world.home().divergence.clone()];
        both.concat().iter().any(|one| !one.discarded)
    });
    assert!(!kept, "what was named is discarded at both sides");
    assert_eq!(machine.path, ["mt-recovery", "ps-recovery", "mt-home"]);
    assert_eq!(machine.health, Health::Healthy);
    check_refusals(fleet, MachineState::Reprotected).await;
}

async fn failback(fleet: &Fleet) {
    fleet.world(|world| world.hold("mt-release"));
    let job = fleet.client.failback(MACHINE).await.expect("accepted");
    fleet.in_state(MachineState::FailingBack).await;
    check_refusals(fleet, MachineState::FailingBack).await;
    fleet.world(|world| world.let_go("mt-release"));
    let job = fleet.done(Ok(job)).await;
    let Some(JobOutcome::Released { epoch, lsn: at, disks }) = job.outcome else {
        panic!("nothing was released: {job:#?}");
    };
    assert_eq!((epoch.number, at), (5, lsn(60)));
    assert_eq!(disks, ["/dev/a", "/dev/b"]);
    let started = fleet.world(|world| world.agent.started.clone());
    assert!(matches!(started, Some(StartMode::Continue { lsn: from, .. }) if from == lsn(60)));
    check_refusals(fleet, MachineState::FailedBack).await;
    let change = ChangePoint { point: PointChoice::Latest };
    let error = fleet.client.change_point(MACHINE, &change).await.expect_err("T-13");
    assert_eq!(error.code, codes::POINT_CHANGE_REFUSED.name);
    let skipped = job.steps.iter().filter(|step| step.state == StepState::Skipped);
    assert_eq!(skipped.count(), 0, "{:#?}", job.steps);
}
