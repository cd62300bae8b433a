//! Resources for the tests of this crate, with every field filled.

use landfall_api_types::alert::{Alert, Severity};
use landfall_api_types::resource::*;
use landfall_api_types::retention::{Outlook, RetentionStatus};
use landfall_api_types::{ApiError, codes};
use landfall_model::{MachineState, Stage, StageTime};
use landfall_types::*;

fn progress() -> Progress {
    Progress {
        phase: "comparing".into(),
        done_bytes: 1 << 20,
        total_bytes: 4 << 20,
        sent_bytes: 1 << 10,
        rate_bytes_per_s: 1_048_576.0,
        eta_s: Some(3.0),
    }
}

fn failed() -> ApiError {
    ApiError::new(&codes::NODE_FAILED, "the disk is gone")
}

pub(crate) fn branch() -> Branch {
    let export = ExportAddress {
        disk: DiskIndex(0),
        socket: "/run/nbd.sock".into(),
        export: "web-1/0@test-1".into(),
        uri: "nbd+unix:///web-1%2F0%40test-1?socket=%2Frun%2Fnbd.sock".into(),
        tls_uri: Some("nbds://mt.example:10809/web-1/0@test-1".into()),
    };
    Branch {
        id: BranchId::from_bytes([1; 16]),
        name: "test-1".into(),
        fork: Lsn::new(17),
        head: Lsn::new(20),
        authority: false,
        written_bytes: 4096,
        exports: vec![export],
    }
}

pub(crate) fn job(state: JobState) -> Job {
    Job {
        id: JobId::from_bytes([2; 16]),
        kind: "failover".into(),
        machine: MachineId::from_bytes([3; 16]),
        machine_name: "web-1".into(),
        state,
        steps: vec![Step {
            name: "promote".into(),
            state: StepState::Succeeded,
            detail: String::new(),
        }],
        progress: Some(progress()),
        error: Some(failed()),
        outcome: None,
        created: UnixNanos(1_800_000_000_000_000_000),
        finished: None,
    }
}

pub(crate) fn failover() -> Job {
    let outcome = Some(JobOutcome::Branch(branch()));
    Job { error: None, outcome, ..job(JobState::Succeeded) }
}

pub(crate) fn divergence() -> Divergence {
    Divergence {
        name: "home-disks".into(),
        server: "mt-home".into(),
        description: "content of the old disks".into(),
        epoch: None,
        after: Lsn::new(17),
        through: Lsn::new(20),
        written_bytes: 4096,
        first_time: None,
        last_time: Some(UnixNanos(1_800_000_000_000_000_000)),
        discarded: false,
    }
}

pub(crate) fn server() -> Server {
    Server {
        id: NodeId::from_bytes([4; 16]),
        name: "mt-home".into(),
        role: NodeRole::MasterTarget,
        address: Some("192.0.2.1:7620".into()),
        version: "0.1.0".into(),
        last_report: None,
        in_contact: false,
        bandwidth: None,
        problems: vec![failed()],
    }
}

pub(crate) fn machine() -> Machine {
    let epoch = Epoch { number: 1, id: EpochId::new(7), parent: None };
    Machine {
        id: MachineId::from_bytes([3; 16]),
        name: "web-1".into(),
        state: MachineState::Protected,
        generation: 5,
        accepts: vec!["test-failover".into(), "failover".into()],
        health: Health::CatchingUp,
        epoch,
        lineage: Lineage::root(epoch),
        instance: InstanceId::from_bytes([5; 16]),
        disks: vec![Disk {
            index: DiskIndex(0),
            id: DiskId::from_bytes([6; 16]),
            path: "/dev/vda".into(),
            geometry: DiskGeometry { size_bytes: 1 << 30, sector_bytes: 512 },
        }],
        replica: ReplicaId::from_bytes([7; 16]),
        path: vec!["web-1".into(), "ps-home".into(), "mt-recovery".into()],
        capture: Some((CaptureMode::Bitmap, "ring-overflow".into())),
        disk_capture: vec![DiskCapture {
            disk: DiskIndex(0),
            mode: CaptureMode::Bitmap,
            reason: "ring-overflow".into(),
        }],
        capture_losses: vec![("ring-overflow".into(), 3)],
        capture_returns: 2,
        watermarks: Watermarks {
            captured: Lsn::new(50),
            sent: Lsn::new(40),
            received: Lsn::new(30),
            durable: Lsn::new(20),
            folded: Lsn::new(10),
        },
        newest_point: None,
        rpo_s: Some(1.2),
        rpo_stages: vec![
            StageTime { stage: Stage::Capture, s: 0.2 },
            StageTime { stage: Stage::Spool, s: 1.0 },
        ],
        rtt_ms: [Some(0.3), Some(41.5)],
        catch_up: Some(CatchUp {
            reason: WindowReason::RingOverflow,
            mode: WindowMode::Compare,
            estimate_bytes: None,
            progress: progress(),
            finished: false,
        }),
        branches: vec![branch()],
        journal_records: 50,
        journal_bytes: 1 << 20,
        encryption: None,
        policy: "default".into(),
        retention: Some(retention()),
        history: vec![HistoryEntry {
            time: UnixNanos(1_800_000_000_000_000_000),
            by: "operator".into(),
            event: "protected".into(),
        }],
        problems: vec![failed()],
    }
}

pub(crate) fn retention() -> RetentionStatus {
    RetentionStatus {
        policy: RetentionPolicy::default(),
        listed: 7,
        thinned: 3,
        pinned: 1,
        oldest: Some(Lsn::new(3)),
        oldest_time: None,
        history_s: 7_200,
        used_bytes: 1 << 30,
        shortened: None,
        rates: Some([1.0, 2.0, 3.0]),
        outlook: Outlook::Short,
        fits_s: 9 * 3_600,
        left_s: Some(7 * 3_600),
        volume_free_bytes: 1 << 30,
        volume_bytes: 4 << 30,
    }
}

pub(crate) fn alert() -> Alert {
    Alert {
        id: 4,
        code: "retention-shortened".into(),
        severity: Severity::Critical,
        machine: Some("web-1".into()),
        server: Some("mt".into()),
        cause: "history is 2 h of 24 h".into(),
        cure: "give it room".into(),
        raised: UnixNanos(1_800_000_000_000_000_000),
        cleared: None,
    }
}
