//! The three hops under faults. A seed decides everything: which faults a history has, when they
//! strike, and in which order everything else happens.

use crate::agent::Agent;
use crate::hop::Hop;
use crate::relay::Relay;
use crate::target::Target;
use crate::truth::{BLOCKS, Truth, image};
use landfall_repl::{SenderInput, SenderOptions, SourceIdentity, Ticks};
use landfall_testkit::Rng;
use landfall_types::{Chain, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, ReplicaId};

/// A mistake that is built in, to see that the harness finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    None,
    /// The target acknowledges what it has received but not flushed.
    AckOnReceive,
    /// The target resumes from what it had received before a crash, and stores whatever comes.
    NoGapCheck,
    /// Nobody compares lineages and instances.
    EpochIgnored,
    /// A relay that lost its spool goes on where it was.
    SkipAfterLostSpool,
    /// Not a mistake of the protocol but of the agent (trap T-1): the protocol must contain it.
    NaiveRenumbering,
}

/// How often each fault strikes in this history: once in so many steps; 0: never.
#[derive(Debug)]
struct Mix {
    cut: u64,
    relay_crash: u64,
    target_crash: u64,
    lost_spool: u64,
    agent_crash: u64,
    revert: u64,
    failover: u64,
    clone: u64,
    partition: u64,
    write: u64,
}

impl Mix {
    fn new(rng: &mut Rng) -> Self {
        let mut once_in = |steps: u64| match rng.below(3) {
            0 => 0,
            _ => steps / 2 + rng.below(steps),
        };
        Self {
            cut: once_in(60),
            relay_crash: once_in(200),
            target_crash: once_in(200),
            lost_spool: once_in(400),
            agent_crash: once_in(400),
            revert: once_in(500),
            failover: once_in(600),
            clone: once_in(800),
            partition: once_in(300),
            write: 3 + rng.below(20),
        }
    }
}

#[derive(Debug)]
pub(crate) struct World {
    rng: Rng,
    mix: Mix,
    bug: Bug,
    now: Ticks,
    truth: Truth,
    /// The first one has authority; the others are what is left of earlier epochs, and clones.
    agents: Vec<(Agent, Hop)>,
    relay: Relay,
    down: Hop,
    target: Target,
    snapshot: Option<Agent>,
    writes: u64,
    serial: u64,
    idle: u32,
    pub(crate) counts: Counts,
}

/// What a history contained: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) cuts: u64,
    pub(crate) crashes: u64,
    pub(crate) lost_spools: u64,
    pub(crate) reverts: u64,
    pub(crate) failovers: u64,
    pub(crate) clones: u64,
    pub(crate) records: u64,
    pub(crate) set_aside: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.lost_spools += other.lost_spools;
        self.reverts += other.reverts;
        self.failovers += other.failovers;
        self.clones += other.clones;
        self.records += other.records;
        self.set_aside += other.set_aside;
    }
}

/// Agents of the past that go on trying beside the one with authority.
const OTHERS_MAX: usize = 3;
const SAFETY_STEPS: u64 = 2_500;
const HEAL_STEPS: u64 = 60_000;

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
        Self {
            rng,
            mix,
            bug,
            now: Ticks(1),
            truth: Truth::new(),
            agents: vec![(agent, Hop::new(1 << 32, SenderOptions::default()))],
            relay: Relay::new(instance, bug),
            down: Hop::new(0, patient),
            target,
            snapshot: None,
            writes: 0,
            serial: 1,
            idle: 0,
            counts: Counts::default(),
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
                self.truth.check(&self.target.log)?;
            }
        }
        self.heal();
        for _ in 0..HEAL_STEPS {
            self.step();
            if self.converged() {
                self.truth.check(&self.target.log)?;
                self.check_every_point()?;
                self.counts.set_aside = self.relay.set_aside.into();
                return self.truth.check_all_arrived(&self.target.log, &self.agents[0].0.blocks);
            }
        }
        self.truth.check(&self.target.log)?;
        Err(format!(
            "does not converge: {:?} {:?} {:?}, agent tail {} quiet {} sender {:?}, relay tail {:?} sender {:?}, target tail {}",
            (self.agents[0].0.promised, self.agents[0].0.newest_covered()),
            self.agents[0].1.sender.progress(),
            self.down.sender.progress(),
            self.agents[0].0.queue.tail(),
            self.agents[0].0.quiet(),
            self.agents[0].1.sender.phase(),
            self.relay.tail(),
            self.down.sender.phase(),
            self.target.log.tail()
        ))
    }

    fn converged(&self) -> bool {
        let agent = &self.agents[0].0;
        let tail = agent.queue.tail();
        agent.quiet()
            && self.target.log.durable() == tail
            && self.target.log.chain_at(tail) == Some(agent.queue.tail_chain())
            && agent.promised == agent.newest_covered()
    }

    /// Promise P3 for every position of the log, not only its end.
    fn check_every_point(&self) -> Result<(), String> {
        self.truth.check_prefixes(&self.target.log)
    }

    fn heal(&mut self) {
        self.mix = Mix {
            cut: 0,
            relay_crash: 0,
            target_crash: 0,
            lost_spool: 0,
            agent_crash: 0,
            revert: 0,
            failover: 0,
            clone: 0,
            partition: 0,
            write: 0,
        };
        self.down.reachable = true;
        self.agents.iter_mut().for_each(|(_, hop)| hop.reachable = true);
    }

    fn step(&mut self) {
        self.counts.steps += 1;
        self.now.0 += 1_000;
        let which = usize::try_from(self.rng.below(1 + self.agents.len() as u64)).expect("small");
        let did = match self.agents.get_mut(which) {
            Some((agent, hop)) => {
                let worked = self.rng.one_in(3) && agent.work();
                worked | hop.step(self.now, &mut self.rng, agent, &mut self.relay)
            }
            None => self.down.step(self.now, &mut self.rng, &mut self.relay, &mut self.target),
        };
        for (agent, hop) in &mut self.agents {
            if std::mem::take(&mut agent.restart) {
                hop.input(self.now, SenderInput::Restart, agent);
            }
        }
        if std::mem::take(&mut self.relay.restart) {
            self.down.input(self.now, SenderInput::Restart, &mut self.relay);
        }
        // An agent that renumbers does not know what its acknowledgements are about.
        if self.bug != Bug::NaiveRenumbering {
            self.truth.promise(self.agents[0].0.promised);
        }
        self.idle = if did { 0 } else { self.idle + 1 };
        if self.idle > 60 {
            // Nothing but time can happen.
            self.idle = 0;
            let hops = self.agents.iter().map(|(_, hop)| hop).chain([&self.down]);
            if let Some(next) = hops.filter_map(Hop::deadline).min() {
                self.now = self.now.max(next);
            }
        }
    }

    fn writes(&mut self) {
        if !self.rng.one_in(self.mix.write) {
            return;
        }
        for (n, (agent, _)) in self.agents.iter_mut().enumerate() {
            self.writes += 1;
            let block = usize::try_from(self.rng.below(BLOCKS as u64)).expect("small");
            agent.write(block, self.writes);
            self.counts.records += 1;
            if n == 0 {
                self.truth.wrote(self.writes, agent.blocks);
            }
        }
    }

    fn strikes(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.rng.one_in(once_in)
    }

    fn faults(&mut self) -> Result<(), String> {
        let (now, half_open) = (self.now, self.rng.one_in(3));
        if self.strikes(self.mix.cut) {
            self.counts.cuts += 1;
            match self.pick_agent() {
                Some((agent, hop)) => hop.cut(now, half_open, &mut Rng::new(now.0), agent),
                None => self.down.cut(now, half_open, &mut self.rng, &mut self.relay),
            }
        }
        if self.strikes(self.mix.partition) {
            let reachable = self.rng.one_in(2);
            match self.pick_agent() {
                Some((_, hop)) => hop.reachable = reachable,
                None => self.down.reachable = reachable,
            }
        }
        let lost = self.strikes(self.mix.lost_spool);
        if lost || self.strikes(self.mix.relay_crash) {
            self.relay_dies(lost);
        }
        if self.strikes(self.mix.target_crash) {
            self.counts.crashes += 1;
            self.down.receiver_died(now, &mut self.rng, &mut self.relay, &mut self.target);
            self.target.crash(&mut self.rng);
            self.truth.check(&self.target.log)?;
        }
        if self.strikes(self.mix.agent_crash) {
            self.counts.crashes += 1;
            self.serial += 1;
            let (agent, hop) = &mut self.agents[0];
            agent.restarted(self.serial << 20);
            hop.sender_died(now);
        }
        if self.strikes(self.mix.revert) {
            self.revert();
        }
        if self.strikes(self.mix.clone) && self.agents.len() <= OTHERS_MAX {
            self.clone_agent();
        }
        if self.strikes(self.mix.failover) && self.agents.len() <= OTHERS_MAX {
            self.fail_over()?;
        }
        Ok(())
    }

    fn pick_agent(&mut self) -> Option<&mut (Agent, Hop)> {
        let which = usize::try_from(self.rng.below(1 + self.agents.len() as u64)).expect("small");
        self.agents.get_mut(which)
    }

    fn relay_dies(&mut self, lost: bool) {
        self.counts.crashes += 1;
        for (agent, hop) in &mut self.agents {
            hop.receiver_died(self.now, &mut self.rng, agent, &mut self.relay);
        }
        self.down.sender_died(self.now);
        if lost {
            self.counts.lost_spools += 1;
            self.relay.lose_spool(&mut self.rng);
        } else {
            self.relay.crash(&mut self.rng);
        }
    }

    /// The machine goes back to a snapshot of its memory and disk, agent included (trap T-1).
    fn revert(&mut self) {
        let (agent, hop) = &mut self.agents[0];
        match self.snapshot.take() {
            None => self.snapshot = Some(agent.clone()),
            Some(snapshot) if snapshot.identity.lineage == agent.identity.lineage => {
                self.counts.reverts += 1;
                *agent = snapshot;
                hop.sender_died(self.now);
                // It goes on and writes something else under the positions that it has used
                // already.
                self.writes += 1;
                agent.write(0, self.writes);
                self.truth.wrote(self.writes, agent.blocks);
            }
            Some(_) => {}
        }
    }

    /// A clone of the machine, agent's memory and all, with an instance of its own (trap T-11).
    fn clone_agent(&mut self) {
        self.counts.clones += 1;
        let mut clone = self.agents[0].0.clone();
        clone.identity.instance = InstanceId::from_bytes([0xcc; 16]);
        self.add(clone);
    }

    fn add(&mut self, agent: Agent) {
        self.serial += 1;
        self.agents.push((agent, Hop::new(self.serial << 32, SenderOptions::default())));
    }

    /// The target is promoted where it stands; the old side knows nothing of it and goes on
    /// sending.
    fn fail_over(&mut self) -> Result<(), String> {
        self.truth.check(&self.target.log)?;
        self.down.receiver_died(self.now, &mut self.rng, &mut self.relay, &mut self.target);
        self.target.crash(&mut self.rng);
        let (blocks, legal) = image(&self.target.log);
        if !legal || self.truth.number_of(&blocks).is_none() {
            return Ok(());
        }
        self.counts.failovers += 1;
        self.serial += 1;
        let old = self.target.lineage.epoch();
        let epoch = Epoch {
            number: old.number + 1,
            id: EpochId::new(self.rng.next_u64()),
            parent: Some(old.id),
        };
        let (fork, chain) = (self.target.log.tail(), self.target.log.tail_chain());
        let lineage = self.target.lineage.extend(epoch, fork).expect("rises");
        let byte = u8::try_from(self.serial % 100).expect("small");
        // Half of the time the old side has the same instance: then only the epoch tells them
        // apart.
        let same = self.rng.one_in(2);
        let instance = if same { self.target.instance } else { InstanceId::from_bytes([byte; 16]) };
        self.target.lineage = lineage.clone();
        self.target.instance = instance;
        self.relay.instance = instance;
        self.truth.failed_over(&blocks);
        let identity = SourceIdentity {
            lineage,
            incarnation: Incarnation::new(self.serial << 20),
            instance,
            ..self.agents[0].0.identity.clone()
        };
        let agent = Agent::new(identity, blocks, (fork, chain), self.bug);
        self.add(agent);
        let last = self.agents.len() - 1;
        self.agents.swap(0, last);
        self.snapshot = None;
        Ok(())
    }
}
