//! What the agent keeps durably, so that it goes on without the configuration server: `agent.json`
//! in its state directory.

use landfall_api_types::order::AgentStart;
use landfall_types::{Chain, Class, Epoch, InstanceId, Lsn};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// What the agent was told, and what became of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// Captures and sends.
    Running {
        /// The order.
        start: Box<AgentStart>,
    },
    /// Stopped by order: the source of this direction is demoted.
    Demoted {
        /// The order that it ran by.
        start: Box<AgentStart>,
        /// The last record.
        lsn: Lsn,
        /// The chain there.
        chain: Chain,
    },
    /// The epoch is over: inert until authority is given again, in a higher epoch.
    Fenced {
        /// The order that it ran by, if any.
        start: Option<Box<AgentStart>>,
    },
}

/// The durable state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentState {
    version: u32,
    /// The instance that wrote this: another one is a clone or a recovered machine, and inert (trap
    /// T-11).
    pub instance: InstanceId,
    /// The highest epoch number that is known to be over; only a higher one may start.
    pub fenced_below: u64,
    /// See [`Phase`].
    pub phase: Phase,
}

/// Why the state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{operation} {}", path.display())]
    File {
        /// Verb.
        operation: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is not an agent's state", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is of a later version.
    #[error("{} is of version {found}, newer than this agent", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl StateError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::File { .. } => Class::Transient,
            Self::Damaged { .. } => Class::Corrupt,
            Self::Newer { .. } => Class::Permanent,
        }
    }
}

impl AgentState {
    /// Of an agent that was told nothing yet.
    #[must_use]
    pub const fn new(instance: InstanceId) -> Self {
        Self { version: VERSION, instance, fenced_below: 0, phase: Phase::Idle }
    }

    /// The order that it runs or ran by.
    #[must_use]
    pub const fn start(&self) -> Option<&AgentStart> {
        match &self.phase {
            Phase::Idle | Phase::Fenced { start: None } => None,
            Phase::Running { start }
            | Phase::Demoted { start, .. }
            | Phase::Fenced { start: Some(start) } => Some(start),
        }
    }

    /// True when a machine may write in this epoch by what is known here.
    #[must_use]
    pub const fn allows(&self, epoch: Epoch) -> bool {
        epoch.number > self.fenced_below
    }

    /// The epoch of the running order is over.
    pub fn fence(&mut self) {
        let start = self.start().cloned().map(Box::new);
        if let Some(start) = &start {
            self.fenced_below = self.fenced_below.max(start.lineage.epoch().number);
        }
        self.phase = Phase::Fenced { start };
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// [`StateError`]: a damaged state is never taken for an empty one.
    pub fn load(dir: &Path) -> Result<Option<Self>, StateError> {
        let path = path(dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::File { operation: "read", path, source }),
        };
        let state: Self = serde_json::from_slice(&text)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        if state.version > VERSION {
            return Err(StateError::Newer { path, found: state.version });
        }
        Ok(Some(state))
    }

    /// Writes it: when this returns, a crash at any moment finds this state; before, the old one or
    /// this one.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn save(&self, dir: &Path) -> Result<(), StateError> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|source| StateError::Damaged { path: path(dir), source })?;
        text.push(b'\n');
        write_durably(&path(dir), &text)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("agent.json")
}

/// Replaces a file as a whole: content first, then its name, then the directory.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::File { operation, path, source }
    };
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(failed("create", &partial))?;
    file.write_all(content).map_err(failed("write", &partial))?;
    file.sync_all().map_err(failed("sync", &partial))?;
    fs::rename(&partial, path).map_err(failed("rename", &partial))?;
    let dir_file = File::open(dir).map_err(failed("open", dir))?;
    dir_file.sync_all().map_err(failed("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_api_types::order::StartMode;
    use landfall_types::{EpochId, Lineage, MachineId, ReplicaId};

    fn epoch(number: u64) -> Epoch {
        Epoch { number, id: EpochId::new(number), parent: None }
    }

    fn running() -> AgentState {
        let instance = InstanceId::from_bytes([1; 16]);
        let start = AgentStart {
            machine: MachineId::from_bytes([2; 16]),
            replica: ReplicaId::from_bytes([3; 16]),
            instance,
            disks: vec![],
            next_hop: "ps:1".to_owned(),
            lineage: Lineage::root(epoch(3)),
            mode: StartMode::Continue { lsn: Lsn::new(7), chain: Chain::ROOT },
            marker_interval_ms: 5000,
        };
        let phase = Phase::Running { start: Box::new(start) };
        AgentState { phase, ..AgentState::new(instance) }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(AgentState::load(dir.path()).expect("reads"), None);
        let state = running();
        state.save(dir.path()).expect("writes");
        assert_eq!(AgentState::load(dir.path()).expect("reads"), Some(state));
    }

    #[test]
    fn a_damaged_state_is_no_empty_state() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("agent.json"), "{").expect("writes");
        let error = AgentState::load(dir.path()).expect_err("damaged");
        assert_eq!(error.class(), Class::Corrupt);
        let newer = serde_json::to_string(&running()).expect("encodes");
        let newer = newer.replace("\"version\":1", "\"version\":2");
        fs::write(dir.path().join("agent.json"), newer).expect("writes");
        assert!(matches!(AgentState::load(dir.path()), Err(StateError::Newer { found: 2, .. })));
    }

    /// Guards P6: an epoch that is over never starts again; authority comes back only with a higher
    /// one.
    #[test]
    fn a_fence_holds_until_a_higher_epoch() {
        let mut state = running();
        assert!(state.allows(epoch(3)));
        state.fence();
        assert!(matches!(state.phase, Phase::Fenced { .. }));
        assert!(!state.allows(epoch(3)) && !state.allows(epoch(2)));
        assert!(state.allows(epoch(4)));
    }
}
