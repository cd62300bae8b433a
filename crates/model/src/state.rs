use std::fmt;

/// Where a protected machine stands in the cycle (design section 14.10). Health is not a state.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// Known, not protected.
    Unprotected,
    /// The window of the first copy is open.
    Protecting,
    /// Replicating; every LSN outside a window is recoverable.
    Protected,
    /// A failover job runs.
    FailingOver,
    /// Runs at the recovery site; the point can still be changed.
    FailedOver,
    /// Runs at the recovery site for good; older points can't be chosen any more.
    Committed,
    /// The window towards home is open.
    Reprotecting,
    /// Replicating towards home.
    Reprotected,
    /// A failback job runs.
    FailingBack,
    /// Runs at home again, not yet committed.
    FailedBack,
}

impl MachineState {
    /// Every state, in the order of the cycle.
    pub const ALL: [Self; 10] = [
        Self::Unprotected,
        Self::Protecting,
        Self::Protected,
        Self::FailingOver,
        Self::FailedOver,
        Self::Committed,
        Self::Reprotecting,
        Self::Reprotected,
        Self::FailingBack,
        Self::FailedBack,
    ];

    /// As it stands in the API and the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::Protecting => "protecting",
            Self::Protected => "protected",
            Self::FailingOver => "failing-over",
            Self::FailedOver => "failed-over",
            Self::Committed => "committed",
            Self::Reprotecting => "reprotecting",
            Self::Reprotected => "reprotected",
            Self::FailingBack => "failing-back",
            Self::FailedBack => "failed-back",
        }
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
