//! What came of a run: checks and figures.

use crate::preflight::{Missing, mib};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::fmt::Write as _;

/// One thing that must be so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// Step of the demo, 1 to 8; 0: the frame around them.
    pub step: u8,
    /// What must be so.
    pub what: String,
    /// It is.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// What was measured; each is none until its step was reached.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Figures {
    /// Sum of the disks' sizes.
    pub disks_bytes: Option<u64>,
    /// First copy: bytes sent for it.
    pub first_copy_bytes: Option<u64>,
    /// First copy: from the request to protected, seconds.
    pub first_copy_s: Option<f64>,
    /// RPO before the disaster as status showed it, seconds.
    pub rpo_shown_s: Option<f64>,
    /// Disaster: acknowledged entries that were lost.
    pub rpo_entries: Option<u64>,
    /// Disaster: seconds between the last acknowledged entry and the last that was recovered.
    pub rpo_s: Option<f64>,
    /// Disaster: from the request to the first block served, seconds.
    pub rto_s: Option<f64>,
    /// Disaster: from the request to the workload's first entry at the recovery site, seconds.
    pub rto_workload_s: Option<f64>,
    /// Way home: bytes that were expected to be sent.
    pub way_home_estimate_bytes: Option<u64>,
    /// Way home: bytes sent for the catch-up.
    pub way_home_bytes: Option<u64>,
    /// Failback: from the request to disks that are the machine's own, seconds.
    pub failback_s: Option<f64>,
    /// Protected again: bytes sent for a catch-up.
    pub protect_again_bytes: Option<u64>,
    /// Records of the machine's log from the first copy to the end.
    pub journal_records: Option<u64>,
    /// Ledger entries at the end.
    pub entries: Option<u64>,
}

/// Everything that a run tells at its end.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Repeats this run.
    pub seed: u64,
    /// All checks passed and all steps were reached.
    pub passed: bool,
    /// Why it could not begin; nothing was changed then.
    pub missing: Vec<Missing>,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What was measured.
    pub figures: Figures,
    /// From start to end, seconds.
    pub total_s: f64,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        let (missing, checks, figures) = (Vec::new(), Vec::new(), Figures::default());
        Self { seed, passed: false, missing, checks, figures, total_s: 0.0 }
    }

    /// The table at the end, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["", "figure"]);
        for (what, value) in self.figures.lines() {
            table.add_row([what, &value]);
        }
        table.add_row(["total time", &format!("{:.1} s", self.total_s)]);
        let mut text = table.to_string();
        let failed: Vec<_> = self.checks.iter().filter(|check| !check.passed).collect();
        let passed = self.checks.len() - failed.len();
        let _ = write!(text, "\nchecks: {passed} passed, {} failed", failed.len());
        for check in failed {
            let _ =
                write!(text, "\n  FAILED in step {}: {}: {}", check.step, check.what, check.found);
        }
        text
    }
}

impl Figures {
    // tidy: table
    fn lines(&self) -> Vec<(&'static str, String)> {
        let seconds = |value: Option<f64>| value.map(|s| format!("{s:.2} s"));
        let bytes = |value: Option<u64>| value.map(mib);
        let count = |value: Option<u64>| value.map(|n| n.to_string());
        let lines = [
            ("both disks", bytes(self.disks_bytes)),
            ("first copy: sent", bytes(self.first_copy_bytes)),
            ("first copy: time", seconds(self.first_copy_s)),
            ("RPO shown before the disaster", seconds(self.rpo_shown_s)),
            ("RPO at the disaster: entries lost", count(self.rpo_entries)),
            ("RPO at the disaster: time lost", seconds(self.rpo_s)),
            ("RTO: request to first block served", seconds(self.rto_s)),
            ("RTO: request to workload's first entry", seconds(self.rto_workload_s)),
            ("way home: estimate", bytes(self.way_home_estimate_bytes)),
            ("way home: sent", bytes(self.way_home_bytes)),
            ("failback: request to disks at home", seconds(self.failback_s)),
            ("protected again: sent for a catch-up", bytes(self.protect_again_bytes)),
            ("records journaled", count(self.journal_records)),
            ("ledger entries at the end", count(self.entries)),
        ];
        let dash = || "–".to_owned();
        lines.into_iter().map(|(what, value)| (what, value.unwrap_or_else(dash))).collect()
    }
}
