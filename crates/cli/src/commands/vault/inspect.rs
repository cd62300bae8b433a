use super::{Opened, refusal};
use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::output::{self, Format, bytes, facts, table, time};
use landfall_api_types::ApiError;
use landfall_types::{Epoch, Lsn, MachineId, ReplicaId};
use landfall_volume::{
    Attestation, Choices, Point, ReplicaStatus, ReplicaSummary, Role, StorageError,
};
use serde::Serialize;

/// Lists what a volume holds. Damaged replicas are listed with what is wrong, and decide the exit
/// status.
pub(super) fn inspect(args: &InspectArgs, format: Format) -> Result<(), Failure> {
    let opened = Opened::open(&args.volume)?;
    let ids = opened.find(args.machine.as_deref())?;
    let replicas: Vec<Listed> = ids.into_iter().map(|id| look(&opened, id)).collect();
    output::print(format, &replicas, |replicas| {
        let texts: Vec<String> = replicas.iter().map(Listed::text).collect();
        if texts.is_empty() { "no replicas".to_owned() } else { texts.join("\n\n") }
    });
    let damaged = replicas.into_iter().find_map(|replica| replica.error);
    damaged.map_or(Ok(()), |error| Err(Failure::Api(error)))
}

/// One replica, as far as it can be read.
#[derive(Debug, Serialize)]
struct Listed {
    replica: ReplicaId,
    machine: Option<MachineId>,
    machine_name: String,
    role: Option<Role>,
    epoch: Option<Epoch>,
    disks: Vec<Disk>,
    /// The image's position.
    folded: Option<Lsn>,
    /// The end of the log in force.
    end: Option<Lsn>,
    journal_bytes: u64,
    /// Name of the key that it is encrypted with.
    key: Option<String>,
    branches: Vec<Branch>,
    divergence: Vec<String>,
    /// Promotions without a configuration server.
    attestations: Vec<Attestation>,
    points: Vec<Marked>,
    legal: Vec<(Lsn, Lsn)>,
    /// Why not all of it could be read.
    error: Option<ApiError>,
}

#[derive(Debug, Serialize)]
struct Disk {
    index: u16,
    size_bytes: u64,
    sector_bytes: u32,
    image: String,
}

#[derive(Debug, Serialize)]
struct Branch {
    name: String,
    fork: Lsn,
    head: Lsn,
    authority: bool,
}

#[derive(Debug, Serialize)]
struct Marked {
    lsn: Lsn,
    time_unix_ns: u64,
    name: Option<String>,
}

fn look(opened: &Opened, id: ReplicaId) -> Listed {
    let mut listed = match opened.vault.summary(id) {
        Ok(summary) => Listed::new(id, summary),
        Err(error) => return Listed { error: Some(damage(&error)), ..Listed::new(id, None) },
    };
    let Some(replica) = (match opened.vault.open_replica(id) {
        Ok(replica) => replica,
        Err(error) => return Listed { error: Some(damage(&error)), ..listed },
    }) else {
        return listed;
    };
    listed.attestations = replica.attestations().unwrap_or_default();
    match replica.status().and_then(|status| Ok((status, replica.choices()?))) {
        Ok((status, choices)) => listed.fill(status, choices),
        Err(error) => listed.error = Some(damage(&error)),
    }
    listed
}

fn damage(error: &StorageError) -> ApiError {
    refusal(error.code(), error)
}

impl Listed {
    fn new(replica: ReplicaId, summary: Option<ReplicaSummary>) -> Self {
        let disks = summary.iter().flat_map(|summary| &summary.disks).map(|disk| Disk {
            index: disk.index.0,
            size_bytes: disk.geometry.size_bytes,
            sector_bytes: disk.geometry.sector_bytes,
            image: disk.image.clone(),
        });
        Self {
            replica,
            machine: summary.as_ref().map(|summary| summary.machine),
            machine_name: summary.as_ref().map_or_else(String::new, |s| s.machine_name.clone()),
            role: summary.as_ref().map(|summary| summary.role),
            epoch: summary.as_ref().map(|summary| summary.epoch),
            folded: summary.as_ref().map(|summary| summary.folded),
            disks: disks.collect(),
            end: None,
            journal_bytes: 0,
            key: summary.as_ref().and_then(|summary| summary.key.clone()),
            branches: vec![],
            divergence: vec![],
            attestations: vec![],
            points: vec![],
            legal: vec![],
            error: None,
        }
    }

    fn fill(&mut self, status: ReplicaStatus, choices: Choices) {
        self.end = Some(status.durable.lsn);
        self.journal_bytes = status.journal_bytes;
        let branches = status.branches.into_iter().map(|branch| Branch {
            name: branch.name,
            fork: branch.fork,
            head: branch.head,
            authority: branch.authority,
        });
        self.branches = branches.collect();
        let kept = status.divergence.into_iter().filter(|entry| !entry.discarded);
        self.divergence = kept.map(|entry| entry.name).collect();
        let marked = |point: Point| Marked {
            lsn: point.lsn,
            time_unix_ns: point.marker.time_unix_ns,
            name: point.marker.name,
        };
        self.points = choices.points.into_iter().map(marked).collect();
        self.legal = choices.legal;
    }

    fn text(&self) -> String {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        let mut known = vec![
            ("replica", self.replica.to_string()),
            ("machine", self.machine_name.clone()),
            ("role", or_none(self.role.map(|role| role.to_string()))),
            ("epoch", or_none(self.epoch.map(|epoch| epoch.number.to_string()))),
            ("image at LSN", or_none(self.folded.map(|lsn| lsn.to_string()))),
            ("log ends at LSN", or_none(self.end.map(|lsn| lsn.to_string()))),
            ("journal", bytes(self.journal_bytes)),
            ("encrypted with", or_none(self.key.clone())),
        ];
        if !self.divergence.is_empty() {
            known.push(("diverged", self.divergence.join(", ")));
        }
        for attested in &self.attestations {
            let Attestation { branch, by, word, time_unix_ns, .. } = attested;
            let at = time(landfall_types::UnixNanos(*time_unix_ns));
            known.push(("attested", format!("{branch} at {at} by {by}: {word}")));
        }
        if let Some(error) = &self.error {
            known.push(("DAMAGED", format!("[{}] {}", error.code, error.cause)));
        }
        let mut text = facts(&known);
        let disks = self
            .disks
            .iter()
            .map(|disk| vec![disk.index.to_string(), bytes(disk.size_bytes), disk.image.clone()]);
        text = format!("{text}\n{}", table(&["disk", "size", "image"], disks));
        if !self.branches.is_empty() {
            let rows = self.branches.iter().map(|branch| {
                let authority = if branch.authority { "yes" } else { "" }.to_owned();
                vec![
                    branch.name.clone(),
                    branch.fork.to_string(),
                    branch.head.to_string(),
                    authority,
                ]
            });
            text =
                format!("{text}\n{}", table(&["branch", "from LSN", "to LSN", "authority"], rows));
        }
        let points = self.points.iter().map(|point| {
            let at = time(landfall_types::UnixNanos(point.time_unix_ns));
            vec![point.lsn.to_string(), at, point.name.clone().unwrap_or_default()]
        });
        let legal = self.legal.iter().map(|(first, last)| format!("{first}..{last}"));
        let legal = legal.collect::<Vec<_>>().join(", ");
        let legal = if legal.is_empty() { "none" } else { &legal };
        format!(
            "{text}\n{}\nany LSN of these with --at-lsn: {legal}",
            table(&["LSN", "time", "name"], points)
        )
    }
}
