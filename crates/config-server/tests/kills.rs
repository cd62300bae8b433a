//! The kill matrix: the server dies before and after every write of its database, again and again,
//! while a job runs.
//!
//! Guards P8 and P6: the job ends as it should, the nodes see each effect once, and at no moment
//! can two sides write. By default the server lives for a few writes each time;
//! `LANDFALL_KILL_MATRIX=1` lets it live for one write or none, which stops at every single
//! boundary.

mod support;

use landfall_api_types::ApiError;
use landfall_api_types::request::{ChangePoint, PointChoice};
use landfall_api_types::resource::{Job, JobState};
use landfall_model::MachineState;
use landfall_store::Tripwire;
use std::sync::Arc;
use std::time::Duration;
use support::{Fleet, MACHINE};

/// How many boundaries (two per write) each life of the server sees.
fn lives() -> &'static [u32] {
    match std::env::var_os("LANDFALL_KILL_MATRIX") {
        Some(_) => &[0, 1],
        None => &[6, 3, 8, 1, 5, 2, 7],
    }
}

/// Most deaths of one job: far more than it has writes.
const DEATHS_MAX: usize = 400;

impl Fleet {
    /// Begins a job and kills the server until the job has ended.
    async fn killed_until_done(
        &mut self,
        begin: impl AsyncFn(&Fleet) -> Result<Job, ApiError>,
        wanted: MachineState,
    ) -> usize {
        let mut begun: Option<Job> = None;
        for death in 0..DEATHS_MAX {
            let lives = lives();
            let tripwire = Arc::new(Tripwire::at(lives[death % lives.len()]));
            self.server.restart(Some(Arc::clone(&tripwire)));
            if begun.is_none() {
                // The request may die with the server, before or after the job was written.
                tokio::select! {
                    job = self.begun(&begin) => begun = Some(job),
                    () = tripwire.tripped() => {}
                }
            }
            eprintln!("life {death}: begun {:?}", begun.as_ref().map(|job| (&job.kind, job.id)));
            if self.over(&tripwire, wanted).await {
                self.server.restart(None);
                self.all_in_contact().await;
                return death;
            }
        }
        panic!("the job did not end: {:#?}", begun);
    }

    /// Asks until the job is there: nodes are out of contact at first, and an answer may be lost.
    async fn begun(&self, begin: &impl AsyncFn(&Fleet) -> Result<Job, ApiError>) -> Job {
        loop {
            if let Ok(job) = begin(self).await {
                return job;
            }
            let running = |job: &Job| job.state == JobState::Running;
            if let Ok(jobs) = self.client.jobs().await
                && let Some(job) = jobs.into_iter().find(running)
            {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the server's death or the job's end.
    async fn over(&self, tripwire: &Tripwire, wanted: MachineState) -> bool {
        let ended = async {
            loop {
                if let Ok(jobs) = self.client.jobs().await {
                    let newest = jobs.into_iter().next().expect("protect was the first");
                    let known = newest.state != JobState::Running;
                    let machine = self.client.machine(MACHINE).await;
                    if known && machine.is_ok_and(|machine| machine.state == wanted) {
                        assert_eq!(newest.state, JobState::Succeeded, "{newest:#?}");
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = ended => true,
            () = tripwire.tripped() => false,
            () = tokio::time::sleep(Duration::from_secs(20)) => {
                let newest = self.client.jobs().await.map(|jobs| jobs.into_iter().next());
                panic!("neither a death nor an end: {newest:#?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_and_change_of_point_survive_any_number_of_kills() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.world(|world| world.home_dies());
    let deaths = fleet
        .killed_until_done(
            async |fleet| fleet.client.failover(MACHINE, &Fleet::failover_request()).await,
            MachineState::FailedOver,
        )
        .await;
    assert!(deaths > 3, "the server hardly died");
    // One order each: the node's ledger and the idempotency key make repeats harmless, and none is
    // carried out twice.
    fleet.world(|world| {
        assert_eq!(world.count("mt-promote"), 1);
        assert_eq!(world.count("mt-freeze"), 1);
    });
    assert_eq!(fleet.machine().await.epoch.number, 2, "one epoch for one failover");
    let change = ChangePoint { point: PointChoice::Lsn(support::lsn(20)) };
    fleet.done(fleet.client.change_point(MACHINE, &change).await).await;
    assert_eq!(fleet.machine().await.epoch.number, 3);
}

/// Guards T-17: between demotion and promotion a crash allows exactly one promotion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_failback_survives_any_number_of_kills() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.fail_over().await;
    fleet.done(fleet.client.commit(MACHINE).await).await;
    fleet.reprotect().await;
    fleet
        .killed_until_done(
            async |fleet| fleet.client.failback(MACHINE).await,
            MachineState::FailedBack,
        )
        .await;
    fleet.world(|world| {
        assert_eq!((world.count("mt-demote"), world.count("mt-release")), (1, 1));
        assert_eq!((world.count("mt-follow"), world.count("agent-start")), (1, 2));
    });
    assert_eq!(fleet.machine().await.epoch.number, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_survives_any_number_of_kills() {
    let mut fleet = Fleet::start().await;
    fleet.protect().await;
    fleet.world(|world| world.home_dies());
    let relay = fleet.nodes.iter().find(|node| node.name == "ps-home").expect("it runs").id;
    fleet.world(|world| world.spool.insert(relay, 1));
    let job = fleet.ended(fleet.client.failover(MACHINE, &Fleet::failover_request()).await).await;
    assert_eq!(job.state, JobState::NeedsOperator);
    for death in 0..DEATHS_MAX {
        let tripwire = Arc::new(Tripwire::at(lives()[death % lives().len()]));
        fleet.server.restart(Some(Arc::clone(&tripwire)));
        let _ =
            tokio::time::timeout(Duration::from_millis(300), fleet.client.cancel_job(job.id)).await;
        let ended = support::until("the end or a death", async || {
            let machine = tokio::select! {
                machine = fleet.client.machine(MACHINE) => machine.ok()?,
                () = tripwire.tripped() => return Some(false),
            };
            (machine.state == MachineState::Protected).then_some(true)
        });
        if ended.await {
            break;
        }
    }
    fleet.server.restart(None);
    let job = fleet.client.job(job.id).await.expect("kept");
    assert_eq!(job.state, JobState::RolledBack, "{job:#?}");
    assert_eq!(fleet.machine().await.state, MachineState::Protected);
}
