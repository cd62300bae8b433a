//! The hops under faults. A seed decides everything: which faults a history has, when they strike,
//! and in which order everything else happens.

use crate::agent::Agent;
use crate::bug::Bug;
use crate::hop::{Hop, Sink};
use crate::mix::{Counts, Mix};
use crate::relay::Relay;
use crate::target::Target;
use crate::truth::{BLOCKS, Blocks, Truth};
use landfall_repl::{SenderInput, SenderOptions, SourceIdentity, Ticks};
use landfall_testkit::Rng;
use landfall_types::{Chain, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, ReplicaId};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) mix: Mix,
    pub(crate) bug: Bug,
    pub(crate) now: Ticks,
    pub(crate) truth: Truth,
    /// The first one has authority; the others are what is left of earlier epochs, and clones.
    pub(crate) agents: Vec<(Agent, Hop)>,
    /// One or two in a row; each has the hop to its next one in `downs`.
    pub(crate) relays: Vec<Relay>,
    pub(crate) downs: Vec<Hop>,
    pub(crate) target: Target,
    pub(crate) snapshot: Option<Agent>,
    /// An older state of the target's disk.
    pub(crate) backup: Option<crate::log::SimLog>,
    /// What the disks of the machine that failed hold.
    pub(crate) left_behind: Option<(Blocks, (Lsn, Chain))>,
    pub(crate) writes: u64,
    pub(crate) serial: u64,
    idle: u32,
    pub(crate) counts: Counts,
    trace: bool,
}

/// Agents of the past that go on trying beside the one with authority.
pub(crate) const OTHERS_MAX: usize = 3;
const SAFETY_STEPS: u64 = 2_500;
const HEAL_STEPS: u64 = 80_000;

/// The hop behind relay `n`, with what is at its two ends.
pub(crate) fn link<'a>(
    relays: &'a mut [Relay],
    downs: &'a mut [Hop],
    target: &'a mut Target,
    n: usize,
) -> (&'a mut Hop, &'a mut Relay, &'a mut dyn Sink) {
    let (before, after) = relays.split_at_mut(n + 1);
    let sink = after.first_mut().map_or(target as &mut dyn Sink, |relay| relay);
    (&mut downs[n], &mut before[n], sink)
}

impl World {
    pub(crate) fn new(seed: u64, bug: Bug) -> Self {
        let mut rng = Rng::new(seed);
        let mix = Mix::new(&mut rng);
        let epoch = Epoch { number: 1, id: EpochId::new(rng.next_u64()), parent: None };
        let instance = InstanceId::from_bytes([1; 16]);
        let identity = SourceIdentity {
            replica: ReplicaId::from_bytes([1; 16]),
            lineage: Lineage::root(epoch),
            incarnation: Incarnation::new(1),
            instance,
        };
        let target = Target::new(identity.lineage.clone(), instance, bug);
        let agent = Agent::new(identity, [0; BLOCKS], (Lsn::ZERO, Chain::ROOT), bug);
        let patient = SenderOptions { retry_permanent_ms: Some(1_000), history_bytes: 0 };
        let hops = if rng.one_in(3) { 2 } else { 1 };
        Self {
            rng,
            mix,
            bug,
            now: Ticks(1),
            truth: Truth::new(),
            agents: vec![(agent, Hop::new(1 << 32, SenderOptions::default()))],
            relays: (0..hops).map(|_| Relay::new(instance, bug)).collect(),
            downs: (0..hops).map(|_| Hop::new(0, patient)).collect(),
            target,
            snapshot: None,
            backup: None,
            left_behind: None,
            writes: 0,
            serial: 1,
            idle: 0,
            counts: Counts::default(),
            trace: std::env::var_os("LANDFALL_SIM_TRACE").is_some(),
        }
    }

    /// Faults for a while, then none: nothing wrong may ever be seen, and in the end everything has
    /// arrived.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..SAFETY_STEPS {
            self.faults()?;
            self.writes();
            self.step();
            if self.rng.one_in(8) {
                self.truth.check(&self.target)?;
            }
        }
        self.heal();
        for _ in 0..HEAL_STEPS {
            self.step();
            if self.converged() {
                self.truth.check(&self.target)?;
                self.truth.check_prefixes(&self.target)?;
                self.counts.set_aside =
                    self.relays.iter().map(|one| u64::from(one.set_aside)).sum();
                (self.counts.compared, self.counts.exact) = self.agents[0].0.catch_ups;
                return self.truth.check_all_arrived(&self.target, &self.agents[0].0.blocks);
            }
        }
        self.truth.check(&self.target)?;
        Err(self.stuck())
    }

    fn stuck(&self) -> String {
        let (agent, hop) = &self.agents[0];
        let relays: Vec<_> = self.relays.iter().map(Relay::end).collect();
        let phases: Vec<_> = self.downs.iter().map(|hop| hop.sender.phase()).collect();
        format!(
            "does not converge: promised {} of {}, agent tail {} quiet {} sender {:?}, relays \
             {relays:?} senders {phases:?}, target tail {}",
            agent.promised,
            agent.newest_covered(),
            agent.queue.tail(),
            agent.quiet(),
            hop.sender.phase(),
            self.target.log.tail()
        )
    }

    fn converged(&self) -> bool {
        let agent = &self.agents[0].0;
        let tail = agent.queue.tail();
        agent.quiet()
            && self.target.log.durable() == tail
            && self.target.log.chain_at(tail) == Some(agent.queue.tail_chain())
            && agent.promised == agent.newest_covered()
    }

    fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.mix = Mix { step_us: self.mix.step_us, ..Mix::default() };
        self.downs.iter_mut().for_each(|hop| hop.reachable = true);
        self.agents.iter_mut().for_each(|(_, hop)| hop.reachable = true);
        for relay in &mut self.relays {
            (relay.full, relay.refuses, relay.fail_flush) = (false, false, None);
        }
        let target = &mut self.target;
        (target.full, target.refuses, target.fail_flush) = (false, false, None);
    }

    /// One random thing happens.
    pub(crate) fn step(&mut self) {
        let which = self.below(self.downs.len() + self.agents.len());
        self.step_of(which);
    }

    /// The same of the hops between relays and target only: the machines are off.
    pub(crate) fn step_down(&mut self) {
        let which = self.below(self.downs.len());
        self.step_of(which);
    }

    fn step_of(&mut self, which: usize) {
        self.counts.steps += 1;
        self.now.0 += self.mix.step_us;
        let did = match which.checked_sub(self.downs.len()) {
            None => {
                let (hop, source, sink) =
                    link(&mut self.relays, &mut self.downs, &mut self.target, which);
                hop.step(self.now, &mut self.rng, source, sink)
            }
            Some(which) => {
                let (agent, hop) = &mut self.agents[which];
                let worked = self.rng.one_in(3) && agent.work();
                worked | hop.step(self.now, &mut self.rng, agent, &mut self.relays[0])
            }
        };
        self.restarts();
        // An agent that renumbers does not know what its acknowledgements are about.
        if self.bug != Bug::NaiveRenumbering {
            let agent = &self.agents[0].0;
            self.truth.promise(agent.promised, agent.promised_here);
        }
        self.idle = if did { 0 } else { self.idle + 1 };
        if self.idle > 60 {
            // Nothing but time can happen.
            self.idle = 0;
            let hops = self.agents.iter().map(|(_, hop)| hop).chain(&self.downs);
            if let Some(next) = hops.filter_map(Hop::deadline).min() {
                self.now = self.now.max(next);
            }
        }
    }

    fn restarts(&mut self) {
        for (agent, hop) in &mut self.agents {
            if std::mem::take(&mut agent.restart) {
                hop.input(self.now, SenderInput::Restart, agent);
            }
        }
        for (relay, hop) in self.relays.iter_mut().zip(&mut self.downs) {
            if std::mem::take(&mut relay.restart) {
                hop.input(self.now, SenderInput::Restart, relay);
            }
        }
    }

    fn writes(&mut self) {
        if !self.rng.one_in(self.mix.write) {
            return;
        }
        for n in 0..self.agents.len() {
            let block = self.below(BLOCKS);
            self.write(n, block);
        }
    }

    pub(crate) fn write(&mut self, n: usize, block: usize) {
        self.writes += 1;
        self.counts.records += 1;
        let agent = &mut self.agents[n].0;
        agent.write(block, self.writes);
        if n == 0 {
            self.truth.wrote(self.writes, agent.blocks);
        }
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.rng.below(limit as u64)).expect("small")
    }

    /// A line of the trace: `LANDFALL_SIM_TRACE=1` prints them.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            let target = self.target.log.durable();
            eprintln!("{:>8} target {target:>5}  {}", self.counts.steps, what());
        }
    }
}
