//! The store on real SQLite files.

use landfall_model::MachineState;
use landfall_store::{
    AuthorityRow, EventRow, JobRow, MachineRow, NodeRow, OrderRow, StepRow, Store, StoreError,
    StoreOptions, Tripwire,
};
use landfall_types::{JobId, MachineId, NodeId, OrderId, UnixNanos};
use std::path::Path;
use std::sync::Arc;

async fn open(dir: &Path) -> Store {
    let options = StoreOptions { owner: "test".to_owned(), ..StoreOptions::default() };
    Store::open(&dir.join("landfall.db"), options, UnixNanos(1)).await.expect("open")
}

fn machine() -> MachineRow {
    MachineRow {
        id: MachineId::generate(),
        name: "db-1".to_owned(),
        state: MachineState::Unprotected,
        generation: 0,
        active_job: None,
        body: "{}".to_owned(),
    }
}

fn node() -> NodeRow {
    NodeRow {
        id: NodeId::generate(),
        name: "relay".to_owned(),
        role: "process-server".to_owned(),
        key: "k".to_owned(),
        address: None,
        version: "1".to_owned(),
        last_report: None,
        report: None,
    }
}

#[tokio::test]
async fn rows_survive_a_restart_in_a_path_with_odd_characters() {
    let temp = tempfile::tempdir().expect("temp dir");
    let dir = temp.path().join("a b%?#");
    std::fs::create_dir(&dir).expect("dir");
    let store = open(&dir).await;
    let (machine, mut node) = (machine(), node());
    let job = JobRow {
        id: JobId::generate(),
        machine: machine.id,
        kind: "protect".to_owned(),
        state: "running".to_owned(),
        created: UnixNanos(5),
        finished: None,
        body: "{}".to_owned(),
    };
    let step = StepRow {
        job: job.id,
        position: 0,
        name: "inspect".to_owned(),
        state: "pending".to_owned(),
        detail: String::new(),
    };
    let mut tx = store.begin().await.expect("begin");
    tx.insert_machine(&machine).await.expect("machine");
    tx.insert_job(&job, std::slice::from_ref(&step)).await.expect("job");
    tx.insert_node(&node).await.expect("node");
    node.last_report = Some(UnixNanos(7));
    node.report = Some("{}".to_owned());
    tx.update_node(&node).await.expect("node");
    for (time, event) in [(1, "protected"), (2, "failed over")] {
        let event =
            EventRow { time: UnixNanos(time), by: "op".to_owned(), event: event.to_owned() };
        tx.append_event(machine.id, &event).await.expect("event");
    }
    tx.commit().await.expect("commit");
    store.close().await;

    let store = open(&dir).await;
    let mut tx = store.read().await.expect("read");
    assert_eq!(tx.machines().await.expect("list"), std::slice::from_ref(&machine));
    assert_eq!(tx.machine_named("db-1").await.expect("find"), Some(machine.clone()));
    assert_eq!(tx.nodes().await.expect("list"), [node]);
    assert_eq!(tx.jobs_in_state("running").await.expect("list"), std::slice::from_ref(&job));
    assert_eq!(tx.jobs(None, 9).await.expect("list"), std::slice::from_ref(&job));
    assert_eq!(tx.steps(job.id).await.expect("list"), [step]);
    let events = tx.events(machine.id, 1).await.expect("list");
    assert_eq!(events[0].event, "failed over", "the last ones");
    assert!(tx.machine_named("db-2").await.expect("find").is_none());
}

/// Guards P6 and reliability rule 6.1.1: whoever read an older state can't write over a newer one.
#[tokio::test]
async fn a_row_that_changed_since_is_not_overwritten_and_nothing_else_is_written() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path()).await;
    let mut first = machine();
    let mut tx = store.begin().await.expect("begin");
    tx.insert_machine(&first).await.expect("insert");
    tx.commit().await.expect("commit");
    let mut second = first.clone();

    let mut tx = store.begin().await.expect("begin");
    first.state = MachineState::Protecting;
    tx.update_machine(&mut first).await.expect("update");
    tx.commit().await.expect("commit");

    let mut tx = store.begin().await.expect("begin");
    let event = EventRow { time: UnixNanos(1), by: String::new(), event: "lost".to_owned() };
    tx.append_event(second.id, &event).await.expect("event");
    let refused = tx.update_machine(&mut second).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    drop(tx);
    let mut tx = store.read().await.expect("read");
    assert!(tx.events(first.id, 9).await.expect("list").is_empty(), "one transaction");
    assert_eq!(tx.machine(first.id).await.expect("find").generation, 1);
}

/// Guards T-17: the number of an epoch is never given a second time, whatever a caller writes.
#[tokio::test]
async fn t17_the_highest_epoch_number_only_rises() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path()).await;
    let machine = machine();
    let body = "{}".to_owned();
    let mut row = AuthorityRow { machine: machine.id, generation: 0, highest: 3, body };
    let mut tx = store.begin().await.expect("begin");
    tx.insert_machine(&machine).await.expect("insert");
    tx.insert_authority(&row).await.expect("insert");
    row.highest = 4;
    tx.update_authority(&mut row).await.expect("raise");
    row.highest = 3;
    assert!(matches!(tx.update_authority(&mut row).await, Err(StoreError::Conflict { .. })));
    let mut stale = AuthorityRow { generation: 0, highest: 5, ..row };
    assert!(matches!(tx.update_authority(&mut stale).await, Err(StoreError::Conflict { .. })));
    assert_eq!(tx.authority(machine.id).await.expect("read").highest, 4);
}

/// Guards reliability rule 6.1.3: an executor that was paused over a takeover writes nothing.
#[tokio::test]
async fn a_former_executor_is_fenced() {
    let temp = tempfile::tempdir().expect("temp dir");
    let former = open(temp.path()).await;
    former.begin().await.expect("it holds the lease").commit().await.expect("commit");
    let newer = open(temp.path()).await;
    assert!(newer.fence() > former.fence());
    assert!(matches!(former.begin().await, Err(StoreError::Fenced(_))));
    former.read().await.expect("reading is harmless");
    newer.begin().await.expect("the newer one writes");
}

/// Guards reliability rule 6.1.2: the same key is the same order, and its first result counts.
#[tokio::test]
async fn an_order_is_given_once_and_answered_once_by_its_node() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path()).await;
    let node = node();
    let order = |key: &str| OrderRow {
        id: OrderId::generate(),
        idempotency: key.to_owned(),
        node: node.id,
        created: UnixNanos(5),
        body: "{}".to_owned(),
        result: None,
    };
    let mut tx = store.begin().await.expect("begin");
    tx.insert_node(&node).await.expect("node");
    let first = tx.give_order(&order("job/1/a")).await.expect("give");
    let again = tx.give_order(&order("job/1/a")).await.expect("give");
    assert_eq!(first.id, again.id);
    let other = tx.give_order(&order("job/10/a")).await.expect("give");
    let open: Vec<_> = tx.open_orders(node.id).await.expect("list");
    assert_eq!(open.len(), 2);
    assert!(!tx.answer_order(first.id, NodeId::generate(), "x").await.expect("answer"));
    assert!(tx.answer_order(first.id, node.id, "done").await.expect("answer"));
    assert!(!tx.answer_order(first.id, node.id, "other").await.expect("answer"));
    let kept = tx.order(first.id).await.expect("find").expect("there");
    assert_eq!(kept.result.as_deref(), Some("done"));
    assert_eq!(tx.withdraw_orders("job/1/").await.expect("withdraw"), 0, "it is answered");
    assert_eq!(tx.withdraw_orders("job/10/").await.expect("withdraw"), 1);
    assert!(tx.order(other.id).await.expect("find").is_none());
    assert_eq!(tx.forget_orders(UnixNanos(5)).await.expect("forget"), 0);
    assert_eq!(tx.forget_orders(UnixNanos(6)).await.expect("forget"), 1);
}

/// Reliability rule 6.1.7: read-modify-write from several sides, none lost, none "locked".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_lose_nothing() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 10;
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path()).await;
    let machine = machine();
    let mut tx = store.begin().await.expect("begin");
    tx.insert_machine(&machine).await.expect("insert");
    tx.commit().await.expect("commit");
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, id) = (store.clone(), machine.id);
            tokio::spawn(async move {
                for _ in 0..WRITES {
                    let mut tx = store.begin().await.expect("begin");
                    let mut row = tx.machine(id).await.expect("read");
                    tx.update_machine(&mut row).await.expect("nobody in between");
                    tx.commit().await.expect("commit");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    let row = store.read().await.expect("read").machine(machine.id).await.expect("machine");
    assert_eq!(row.generation, WRITERS * WRITES);
}

#[tokio::test]
async fn the_tripwire_stops_before_or_after_the_commit() {
    for (at, survives) in [(0, false), (1, true)] {
        let temp = tempfile::tempdir().expect("temp dir");
        let tripwire = Arc::new(Tripwire::at(at));
        let options = StoreOptions { tripwire: Some(Arc::clone(&tripwire)), ..Default::default() };
        let path = temp.path().join("landfall.db");
        let store = Store::open(&path, options, UnixNanos(1)).await.expect("open");
        let task = tokio::spawn(async move {
            let mut tx = store.begin().await.expect("begin");
            tx.insert_machine(&machine()).await.expect("insert");
            tx.commit().await.expect("never returns");
        });
        tripwire.tripped().await;
        task.abort();
        assert!(task.await.expect_err("stopped").is_cancelled());
        let store = open(temp.path()).await;
        let machines = store.read().await.expect("read").machines().await.expect("list");
        assert_eq!(machines.len(), usize::from(survives), "boundary {at}");
    }
}
