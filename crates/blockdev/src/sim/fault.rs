/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails with EIO and has no effect.
    Io,
    /// It fails for lack of room and has no effect; only what needs room (create, write, lengthen,
    /// allocate).
    Full,
    /// A write stops half-way: its first half is written, the call fails with EIO.
    Short,
    /// A sync fails: any part of what was pending is written, the handle is poisoned.
    Sync,
}

/// Which operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultPlan {
    /// How.
    pub fault: Fault,
    /// The how-manieth eligible operation from now on, counted from 0.
    pub nth: u64,
    /// True: every eligible operation from there on; false: that one only.
    pub persistent: bool,
}

/// How a sector rots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// One bit of the byte at this offset within the sector is inverted.
    Flip(u32),
    /// The sector reads as zeroes.
    Zero,
    /// The sector holds what was never written.
    Garbage,
    /// The sector holds what belongs to the given sector of the same file (a misdirected write).
    Misdirected(u64),
}

/// What an operation needs, to decide which faults it can meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// Create, lengthen, allocate.
    Grow,
    /// Remove, rename, shorten, punch, list.
    Other,
    Sync,
}

/// The plan with its count.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Option<(FaultPlan, u64)>,
    fired: bool,
}

impl Faults {
    pub(crate) fn set(&mut self, plan: Option<FaultPlan>) {
        self.plan = plan.map(|plan| (plan, 0));
        self.fired = false;
    }

    pub(crate) const fn fired(&self) -> bool {
        self.fired
    }

    /// Counts an operation, and says whether it fails.
    pub(crate) fn meet(&mut self, kind: Kind) -> Option<Fault> {
        let (plan, count) = self.plan.as_mut()?;
        let eligible = match plan.fault {
            Fault::Io => true,
            Fault::Full => matches!(kind, Kind::Write | Kind::Grow),
            Fault::Short => kind == Kind::Write,
            Fault::Sync => kind == Kind::Sync,
        };
        if !eligible {
            return None;
        }
        let index = *count;
        *count += 1;
        let hit = index == plan.nth || (plan.persistent && index > plan.nth);
        self.fired |= hit;
        hit.then_some(plan.fault)
    }
}
