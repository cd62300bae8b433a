//! What the target says of itself about once a second.

use crate::blocking::blocking;
use crate::export_name::export_name;
use crate::hosted::{Hosted, lock};
use crate::outlook;
use crate::rot;
use crate::target::Target;
use landfall_api_types::alert::Condition;
use landfall_api_types::node::{ReplicaReport, ReplicaRole, Report};
use landfall_api_types::resource::{self, Progress, Watermarks};
use landfall_api_types::retention as api;
use landfall_nbd::unix_uri;
use landfall_volume::{Branch, Choices, DivergenceStatus, Hold, HoldKind, Role};
use std::path::Path;
use std::sync::Arc;

impl Target {
    /// What has rotted, of every replica that is open.
    async fn rot_conditions(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        for hosted in self.all() {
            let found = hosted.with(|replica| Ok((replica.status()?.machine, replica.corrupt()?)));
            let found: Result<_, landfall_volume::StorageError> = found.await;
            match found {
                Ok((machine, corrupt)) => all.extend(rot::condition(machine, &corrupt)),
                // Told as a problem of the replica.
                Err(error) => tracing::debug!(%error, "what has rotted can't be told"),
            }
        }
        all
    }

    /// The report; looking at divergence that is new may take I/O.
    pub async fn report(self: &Arc<Self>, address: &str) -> Report {
        let mut replicas = Vec::new();
        let total_rate = self.total_rate();
        for hosted in self.all() {
            if let Some(report) = replica(self, &hosted, total_rate).await {
                replicas.push(report);
            }
        }
        let kept = replicas.iter().filter_map(|one| Some((one.machine, one.retention.as_ref()?)));
        let mut conditions: Vec<Condition> =
            kept.flat_map(|(machine, kept)| outlook::conditions(machine, kept)).collect();
        conditions.extend(self.given_way());
        conditions.extend(self.ingest_condition());
        conditions.extend(self.rot_conditions().await);
        Report {
            address: Some(address.to_owned()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replicas,
            problems: self.problems(),
            conditions,
            ..Report::default()
        }
    }
}

async fn replica(
    target: &Arc<Target>,
    hosted: &Arc<Hosted>,
    total_rate: f64,
) -> Option<ReplicaReport> {
    let status = hosted.replica.status().ok()?;
    let retention = target.retention_status(hosted, &status, total_rate);
    let reverse = hosted.reverse.lock().await.as_ref().map(|reverse| reverse.report());
    let sent = reverse.as_ref().map(|reverse| reverse.sent).unwrap_or_default();
    let branches = hosted.replica.branches();
    Some(ReplicaReport {
        replica: status.replica,
        machine: status.machine,
        role: role(status.role),
        lineage: status.lineage,
        watermarks: Watermarks {
            captured: if reverse.is_some() { status.received } else { landfall_types::Lsn::ZERO },
            sent,
            received: status.received,
            durable: status.durable.lsn,
            folded: status.folded,
        },
        newest_point: status.newest_point.map(api_point),
        newest_legal: status.newest_legal,
        open_windows: status.open_windows,
        image_copied: status.image_copy.map(|copy| copy.durable_bytes).unwrap_or_default(),
        branches: branches.iter().map(|branch| api_branch(target, hosted, branch)).collect(),
        divergence: divergence(target, hosted).await,
        journal_records: status.journal_records,
        journal_bytes: status.journal_bytes,
        key: status.key.clone(),
        connected: lock(&hosted.sessions).connected,
        reverse,
        fold: hosted.replica.fold_progress().map(|fold| Progress {
            phase: "folding".to_owned(),
            done_bytes: fold.done_bytes,
            total_bytes: fold.total_bytes,
            ..Progress::default()
        }),
        retention: Some(retention),
    })
}

const fn role(role: Role) -> ReplicaRole {
    match role {
        Role::Replicating => ReplicaRole::Replicating,
        Role::Frozen => ReplicaRole::Frozen,
        Role::Writable => ReplicaRole::Writable,
        Role::Released => ReplicaRole::Released,
    }
}

fn api_point(point: landfall_volume::Point) -> resource::Point {
    resource::Point {
        lsn: point.lsn,
        time: point.marker.time(),
        kind: point.marker.kind,
        name: point.marker.name,
        group: point.marker.group.map(landfall_types::GroupPointId::from_bytes),
        corrupt: false,
        pinned: false,
    }
}

pub(crate) fn api_points(choices: Choices) -> resource::Points {
    let Choices { points, pinned, legal, corrupt } = choices;
    let point = |point: landfall_volume::Point| {
        let rotten = corrupt.iter().any(|(first, last)| (*first..=*last).contains(&point.lsn));
        let pinned = pinned.contains(&point.lsn);
        resource::Point { corrupt: rotten, pinned, ..api_point(point) }
    };
    resource::Points { points: points.into_iter().map(point).collect(), legal, more: false }
}

/// What keeps history, and until when, in words.
pub(crate) fn api_hold(hold: Hold) -> api::Hold {
    let (kind, name, until) = match hold.kind {
        HoldKind::Pin { by, left_ms } => {
            let until = left_ms.map_or_else(
                || "it is unpinned".to_owned(),
                |ms| format!("{} s of the master target's running time are over", ms / 1_000),
            );
            ("pin", by, until)
        }
        HoldKind::View => ("view", String::new(), "its reader lets it go".to_owned()),
        HoldKind::TestBranch(name) => ("test-branch", name, "it is cleaned up".to_owned()),
        HoldKind::Authority(name) => ("authority", name, "the failover is committed".to_owned()),
        HoldKind::Divergence(name) => ("divergence", name, "it is discarded".to_owned()),
        HoldKind::Window => ("window", String::new(), "the catch-up has ended".to_owned()),
        HoldKind::OldDisks => ("old-disks", String::new(), "it is discarded".to_owned()),
        HoldKind::Undo => ("undo", String::new(), "home is committed".to_owned()),
        HoldKind::Sender => ("sender", String::new(), "it has sent them".to_owned()),
    };
    api::Hold { kind: kind.to_owned(), name, lsn: hold.lsn, until }
}

/// A branch with the places where its disks are served.
pub(crate) fn api_branch(target: &Target, hosted: &Hosted, branch: &Branch) -> resource::Branch {
    let entry = branch.entry();
    let status = hosted.replica.status().ok();
    let machine = status.as_ref().map_or("", |status| &status.machine_name);
    let socket = target.options.nbd_socket();
    let served = branch.disks().into_iter().filter(|_| !branch.revoked());
    let exports = served.map(|disk| {
        let export = export_name(machine, disk, &entry.name);
        address(target, &socket, disk, export)
    });
    let authority = status.as_ref().is_some_and(|status| {
        status.branches.iter().any(|branch| branch.name == entry.name && branch.authority)
    });
    resource::Branch {
        id: entry.id,
        name: entry.name.clone(),
        fork: entry.fork,
        head: branch.head(),
        authority,
        written_bytes: branch.written_bytes(),
        exports: exports.collect(),
    }
}

fn address(
    target: &Target,
    socket: &Path,
    disk: landfall_types::DiskIndex,
    export: String,
) -> resource::ExportAddress {
    let uri = unix_uri(socket, &export);
    let tls_uri = target.tls_uri(&export);
    let socket = socket.to_string_lossy().into_owned();
    resource::ExportAddress { disk, socket, export, uri, tls_uri }
}

/// Divergence as the API shows it. The server's name is put in by the configuration server, which
/// knows it.
pub(crate) async fn divergence(_: &Arc<Target>, hosted: &Arc<Hosted>) -> Vec<resource::Divergence> {
    let hosted = Arc::clone(hosted);
    let all = blocking(move || hosted.divergence()).await;
    all.into_iter().map(api_divergence).collect()
}

fn api_divergence(status: DivergenceStatus) -> resource::Divergence {
    resource::Divergence {
        name: status.entry.name,
        server: String::new(),
        description: status.entry.description,
        epoch: status.entry.epoch,
        after: status.entry.after,
        through: status.entry.through,
        written_bytes: status.written_bytes,
        first_time: status.first_time,
        last_time: status.last_time,
        discarded: status.entry.discarded,
    }
}
