//! Nodes and what they last said: in memory, because they say it again every second.

use crate::Timing;
use landfall_api_types::node::{AgentReport, RelayReport, ReplicaReport, Report};
use landfall_api_types::resource::{NodeRole, Server};
use landfall_types::{NodeId, ReplicaId, UnixNanos};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A registered node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) role: NodeRole,
    pub(crate) key: String,
    pub(crate) address: Option<String>,
    pub(crate) version: String,
    pub(crate) report: Report,
    pub(crate) reported: Option<UnixNanos>,
    /// Of this process: none until it has reported to it.
    heard: Option<Instant>,
    /// Polls that wait now.
    polls: usize,
    /// When the last poll ended.
    polled: Option<Instant>,
    /// When its report was last written to the database.
    pub(crate) persisted: Option<Instant>,
}

/// Every node.
pub(crate) struct Fleet {
    nodes: Mutex<HashMap<NodeId, Node>>,
    timing: Timing,
    started: Instant,
}

impl Fleet {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { nodes: Mutex::new(HashMap::new()), timing, started: Instant::now() }
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a node, or replaces what is known of it; it counts as out of contact until it reports.
    pub(crate) fn add(&self, node: Node) {
        self.nodes().insert(node.id, node);
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Node> {
        self.nodes().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Node> {
        let mut all: Vec<_> = self.nodes().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A node by ID or name, as people name it.
    pub(crate) fn find(&self, name: &str) -> Option<Node> {
        self.nodes().values().find(|node| node.name == name || node.id.to_string() == name).cloned()
    }

    /// Changes what is known of a node; `None` for an unknown one.
    pub(crate) fn change<T>(&self, id: NodeId, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        self.nodes().get_mut(&id).map(change)
    }

    pub(crate) fn name(&self, id: NodeId) -> String {
        self.get(id).map_or_else(|| id.to_string(), |node| node.name)
    }

    /// It reports and polls. Silence is no proof of anything, it only decides whom a job waits for.
    pub(crate) fn in_contact(&self, id: NodeId) -> bool {
        self.nodes().get(&id).is_some_and(|node| node.in_contact(&self.timing))
    }

    /// It is out of contact, and not only because this server has just started: a relay that has
    /// had no time to report must not be passed over as if it were dead (trap T-14).
    pub(crate) fn gone(&self, id: NodeId) -> bool {
        let nodes = self.nodes();
        let Some(node) = nodes.get(&id) else { return true };
        let waited = self.started.elapsed() > self.timing.report_silence;
        // Both its loops have found this server before.
        let known = node.heard.is_some() && (node.polls > 0 || node.polled.is_some());
        !node.in_contact(&self.timing) && (known || waited)
    }

    /// Marks a poll as waiting, until what it gives is dropped: also when the connection breaks.
    pub(crate) fn poll(&self, id: NodeId) -> Poll<'_> {
        self.change(id, |node| node.polls += 1);
        Poll { fleet: self, id }
    }

    /// How long ago it reported to this process; `None` before it has.
    pub(crate) fn report_age(&self, id: NodeId) -> Option<Duration> {
        Some(self.nodes().get(&id)?.heard?.elapsed())
    }

    pub(crate) fn agent(&self, id: NodeId) -> Option<AgentReport> {
        self.nodes().get(&id)?.report.agent.clone()
    }

    pub(crate) fn relay(&self, id: NodeId, replica: ReplicaId) -> Option<RelayReport> {
        let nodes = self.nodes();
        nodes.get(&id)?.report.relays.iter().find(|relay| relay.replica == replica).cloned()
    }

    pub(crate) fn replica(&self, id: NodeId, replica: ReplicaId) -> Option<ReplicaReport> {
        let nodes = self.nodes();
        nodes.get(&id)?.report.replicas.iter().find(|found| found.replica == replica).cloned()
    }

    pub(crate) fn servers(&self) -> Vec<Server> {
        let server = |node: Node| Server {
            in_contact: node.in_contact(&self.timing),
            id: node.id,
            name: node.name,
            role: node.role,
            address: node.address,
            version: node.version,
            last_report: node.reported,
            bandwidth: node.report.bandwidth,
            problems: node.report.problems,
        };
        self.all().into_iter().map(server).collect()
    }
}

impl Node {
    pub(crate) const fn new(id: NodeId, name: String, role: NodeRole, key: String) -> Self {
        Self {
            id,
            name,
            role,
            key,
            address: None,
            version: String::new(),
            report: Report {
                address: None,
                version: String::new(),
                agent: None,
                bandwidth: None,
                relays: Vec::new(),
                replicas: Vec::new(),
                problems: Vec::new(),
                conditions: Vec::new(),
            },
            reported: None,
            heard: None,
            polls: 0,
            polled: None,
            persisted: None,
        }
    }

    fn in_contact(&self, timing: &Timing) -> bool {
        let reported = self.heard.is_some_and(|heard| heard.elapsed() < timing.report_silence);
        let polls = self.polls > 0
            || self.polled.is_some_and(|polled| polled.elapsed() < timing.poll_silence);
        reported && polls
    }

    /// Takes a report in.
    pub(crate) fn hear(&mut self, report: Report, now: UnixNanos) {
        self.address.clone_from(&report.address);
        self.version.clone_from(&report.version);
        self.report = report;
        self.reported = Some(now);
        self.heard = Some(Instant::now());
    }
}

/// A waiting poll.
pub(crate) struct Poll<'a> {
    fleet: &'a Fleet,
    id: NodeId,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.fleet.change(self.id, |node| {
            node.polls = node.polls.saturating_sub(1);
            node.polled = Some(Instant::now());
        });
    }
}
