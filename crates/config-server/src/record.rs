//! What the bodies of the store's rows mean, and loading and saving them together.

use crate::ServerError;
use crate::jobs::{Kind, Params};
use landfall_api_types::ApiError;
use landfall_api_types::order::ReplicaPosition;
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::{Branch, Disk, JobOutcome, JobState};
use landfall_model::authority::Authority;
use landfall_model::{Event, MachineState};
use landfall_store::{AuthorityRow, JobRow, MachineRow, StepRow, Tx};
use landfall_types::{
    BranchId, InstanceId, JobId, Lineage, Lsn, MachineId, NodeId, ReplicaId, UnixNanos,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How a machine is protected.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct MachineBody {
    pub(crate) agent: NodeId,
    /// The instance that has authority at home.
    pub(crate) instance: InstanceId,
    /// Near the machine at home.
    pub(crate) process_server: NodeId,
    /// At the recovery site.
    pub(crate) master_target: NodeId,
    /// At the recovery site.
    pub(crate) replica: ReplicaId,
    pub(crate) disks: Vec<Disk>,
    pub(crate) images: Vec<Option<String>>,
    pub(crate) marker_interval_ms: u64,
    /// Name of its policy.
    pub(crate) policy: String,
    /// The direction towards home, from reprotect until home is committed.
    pub(crate) reverse: Option<Reverse>,
}

/// The direction towards home.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Reverse {
    /// At the recovery site.
    pub(crate) process_server: NodeId,
    /// At home.
    pub(crate) master_target: NodeId,
    /// At home.
    pub(crate) replica: ReplicaId,
    /// The branch as a sender: home's replica takes frames from it only.
    pub(crate) instance: InstanceId,
    /// The original disks as home's master target sees them.
    pub(crate) disks: Vec<String>,
    /// The position before the first record that is sent home; none before it was asked for.
    pub(crate) base: Option<ReplicaPosition>,
    /// Divergence that may be discarded, by name, once the window has closed (trap T-15).
    pub(crate) discard: Vec<String>,
}

/// Authority and the history that goes with it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct AuthorityBody {
    pub(crate) authority: Authority,
    /// The history of the epoch in force.
    pub(crate) lineage: Lineage,
    /// The history of the log that was replicated: a change of point forks from it again.
    pub(crate) replicated: Lineage,
}

/// What a job remembers between its steps.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Vars {
    /// The chosen point, once it was looked up.
    pub(crate) point: Option<PointChoice>,
    /// The receipt of a demotion.
    pub(crate) receipt: Option<ReplicaPosition>,
    /// What was promoted.
    pub(crate) branch: Option<Branch>,
    pub(crate) branch_id: Option<BranchId>,
    /// Disks that were released to the machine.
    pub(crate) released: Vec<String>,
    /// For the history: what was found on the way.
    pub(crate) notes: Vec<String>,
}

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    Forward,
    /// Undoing what was done, from the position down.
    Back,
}

/// A job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct JobBody {
    pub(crate) params: Params,
    pub(crate) by: String,
    pub(crate) direction: Direction,
    /// The step that is being done or undone.
    pub(crate) position: usize,
    /// Part of the idempotency key of orders: rises when a failed order is to be given anew.
    pub(crate) attempt: u32,
    /// An operator wants it given up.
    pub(crate) cancel: bool,
    pub(crate) vars: Vars,
    pub(crate) error: Option<ApiError>,
    pub(crate) outcome: Option<JobOutcome>,
}

/// A machine with its authority, as read in one transaction.
#[derive(Clone, Debug)]
pub(crate) struct MachineRecord {
    pub(crate) row: MachineRow,
    pub(crate) body: MachineBody,
    pub(crate) authority_row: AuthorityRow,
    pub(crate) authority: AuthorityBody,
}

/// A job with its steps.
#[derive(Clone, Debug)]
pub(crate) struct JobRecord {
    pub(crate) row: JobRow,
    pub(crate) body: JobBody,
    pub(crate) kind: Kind,
    pub(crate) steps: Vec<StepRow>,
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, ServerError> {
    serde_json::from_str(text)
        .map_err(|source| ServerError::Record { what: what.to_owned(), source })
}

pub(crate) fn encode(what: &str, value: &impl Serialize) -> Result<String, ServerError> {
    serde_json::to_string(value)
        .map_err(|source| ServerError::Record { what: what.to_owned(), source })
}

/// Names of a kebab-case enum as they stand in the database.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => String::new(),
    }
}

pub(crate) fn state_of<T: DeserializeOwned>(what: &str, name: &str) -> Result<T, ServerError> {
    serde_json::from_value(serde_json::Value::String(name.to_owned()))
        .map_err(|source| ServerError::Record { what: what.to_owned(), source })
}

impl MachineRecord {
    /// Reads a machine with its authority.
    pub(crate) async fn load(tx: &mut Tx, row: MachineRow) -> Result<Self, ServerError> {
        let body = decode("machine", &row.body)?;
        let authority_row = tx.authority(row.id).await?;
        let authority = decode("authority", &authority_row.body)?;
        Ok(Self { row, body, authority_row, authority })
    }

    pub(crate) async fn load_by_id(tx: &mut Tx, id: MachineId) -> Result<Self, ServerError> {
        let row = tx.machine(id).await?;
        Self::load(tx, row).await
    }

    /// Writes what has changed, by compare-and-set.
    pub(crate) async fn save(&mut self, tx: &mut Tx) -> Result<(), ServerError> {
        self.row.body = encode("machine", &self.body)?;
        tx.update_machine(&mut self.row).await?;
        let body = encode("authority", &self.authority)?;
        if body != self.authority_row.body {
            self.authority_row.body = body;
            tx.update_authority(&mut self.authority_row).await?;
        }
        Ok(())
    }

    /// Moves the machine by the table; an event that does not fit is a defect of a job.
    pub(crate) fn happen(&mut self, event: Event) -> Result<(), ServerError> {
        let next = landfall_model::next(self.row.state, event.into());
        self.row.state = next.map_err(|illegal| {
            ServerError::Store(landfall_store::StoreError::Damaged {
                what: "an event of a machine",
                value: illegal.to_string(),
            })
        })?;
        Ok(())
    }

    /// The direction in which records go, or would go.
    pub(crate) const fn homeward(&self) -> bool {
        matches!(
            self.row.state,
            MachineState::Reprotecting | MachineState::Reprotected | MachineState::FailingBack
        )
    }

    /// Node and replica that receive at present, and that points are chosen from.
    pub(crate) fn target(&self) -> (NodeId, ReplicaId) {
        match &self.body.reverse {
            Some(reverse) if self.homeward() => (reverse.master_target, reverse.replica),
            _ => (self.body.master_target, self.body.replica),
        }
    }

    /// The LSN at which the epoch in force forked.
    pub(crate) fn fork(&self) -> Lsn {
        self.authority.lineage.last().fork
    }
}

impl JobRecord {
    pub(crate) async fn load(tx: &mut Tx, row: JobRow) -> Result<Self, ServerError> {
        let body = decode("job", &row.body)?;
        let kind = state_of("kind of job", &row.kind)?;
        let steps = tx.steps(row.id).await?;
        Ok(Self { row, body, kind, steps })
    }

    pub(crate) async fn load_by_id(tx: &mut Tx, id: JobId) -> Result<Option<Self>, ServerError> {
        match tx.job(id).await? {
            Some(row) => Self::load(tx, row).await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn state(&self) -> Result<JobState, ServerError> {
        state_of("state of a job", &self.row.state)
    }

    /// Writes the job. A cancel request that came meanwhile is kept: it is set by others, never
    /// taken back.
    pub(crate) async fn save(&mut self, tx: &mut Tx) -> Result<(), ServerError> {
        if let Some(now) = tx.job(self.row.id).await? {
            let now: JobBody = decode("job", &now.body)?;
            self.body.cancel |= now.cancel;
        }
        self.row.body = encode("job", &self.body)?;
        tx.update_job(&self.row).await?;
        Ok(())
    }

    pub(crate) fn end(&mut self, state: JobState, now: UnixNanos) {
        self.row.state = name_of(&state);
        self.row.finished = Some(now);
    }
}
