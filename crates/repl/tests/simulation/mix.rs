//! Which faults a history has, and what it contained.

use landfall_testkit::Rng;

/// How often each fault strikes in this history: once in so many steps; 0: never. Each seed has its
/// own mix (swarm): histories with few kinds of faults reach states that a mix of all never does.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Mix {
    pub(crate) cut: u64,
    pub(crate) partition: u64,
    pub(crate) relay_crash: u64,
    pub(crate) lost_spool: u64,
    pub(crate) relay_full: u64,
    pub(crate) relay_flush: u64,
    pub(crate) target_crash: u64,
    pub(crate) target_full: u64,
    pub(crate) target_flush: u64,
    pub(crate) rollback: u64,
    pub(crate) agent_crash: u64,
    pub(crate) revert: u64,
    pub(crate) clone: u64,
    pub(crate) failover: u64,
    pub(crate) reverse: u64,
    pub(crate) write: u64,
    /// Time that a step takes: how much is tried between two attempts to connect.
    pub(crate) step_us: u64,
}

impl Mix {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        // How many kinds of faults, and how often they strike: a lot of everything leaves no time
        // in which anything could be lost.
        let (kinds, calm) = (1 + rng.below(8), 1 + rng.below(4));
        let mut once_in = |steps: u64| match rng.below(10) < kinds {
            true => calm * (steps / 2 + rng.below(steps)),
            false => 0,
        };
        Self {
            cut: once_in(60),
            partition: once_in(300),
            relay_crash: once_in(200),
            lost_spool: once_in(300),
            relay_full: once_in(200),
            relay_flush: once_in(300),
            target_crash: once_in(200),
            target_full: once_in(200),
            target_flush: once_in(300),
            rollback: once_in(400),
            agent_crash: once_in(400),
            revert: once_in(500),
            clone: once_in(800),
            failover: once_in(500),
            reverse: once_in(600),
            write: 3 + rng.below(20),
            step_us: [1_000, 5_000, 20_000, 60_000][usize::from(rng.next_u64() as u8 % 4)],
        }
    }
}

/// What a history contained: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) cuts: u64,
    pub(crate) crashes: u64,
    pub(crate) full: u64,
    pub(crate) failed_flushes: u64,
    pub(crate) lost_spools: u64,
    pub(crate) rollbacks: u64,
    pub(crate) reverts: u64,
    pub(crate) failovers: u64,
    pub(crate) drained: u64,
    pub(crate) reversals: u64,
    pub(crate) clones: u64,
    pub(crate) records: u64,
    pub(crate) set_aside: u64,
    /// Catch-ups of everything, and of dirty blocks only.
    pub(crate) compared: u64,
    pub(crate) exact: u64,
}

impl Counts {
    /// Name and number of each.
    pub(crate) const fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("steps", self.steps),
            ("cuts", self.cuts),
            ("crashes", self.crashes),
            ("full", self.full),
            ("failed flushes", self.failed_flushes),
            ("lost spools", self.lost_spools),
            ("rollbacks", self.rollbacks),
            ("reverts", self.reverts),
            ("failovers", self.failovers),
            ("drained", self.drained),
            ("reversals", self.reversals),
            ("clones", self.clones),
            ("records", self.records),
            ("set aside", self.set_aside),
            ("compared", self.compared),
            ("exact", self.exact),
        ]
    }

    pub(crate) const fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.full += other.full;
        self.failed_flushes += other.failed_flushes;
        self.lost_spools += other.lost_spools;
        self.rollbacks += other.rollbacks;
        self.reverts += other.reverts;
        self.failovers += other.failovers;
        self.drained += other.drained;
        self.reversals += other.reversals;
        self.clones += other.clones;
        self.records += other.records;
        self.set_aside += other.set_aside;
        self.compared += other.compared;
        self.exact += other.exact;
    }
}
