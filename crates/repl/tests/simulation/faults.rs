//! What goes wrong (fault model F1 to F6 of docs/reliability.md), and what operators do meanwhile.

use crate::agent::Agent;
use crate::bug::Bug;
use crate::hop::Hop;
use crate::target::Target;
use crate::truth::{BLOCKS, image};
use crate::world::{OTHERS_MAX, World, link};
use landfall_repl::{SenderOptions, SourceIdentity};
use landfall_types::{Epoch, EpochId, Incarnation, InstanceId};

/// Steps that a drain may take before the operator goes on without it.
const DRAIN_STEPS: u32 = 3_000;
/// What was full has room again after about so many steps.
const ROOM_COMES_STEPS: u64 = 40;

impl World {
    fn strikes(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.rng.one_in(once_in)
    }

    /// One step's worth of faults, as often as this history's mix says.
    pub(crate) fn faults(&mut self) -> Result<(), String> {
        if self.rng.one_in(ROOM_COMES_STEPS) {
            self.relays.iter_mut().for_each(|relay| relay.full = false);
            self.target.full = false;
        }
        self.network_faults();
        self.relay_faults();
        self.target_faults()?;
        self.machine_faults();
        if self.strikes(self.mix.failover) && self.agents.len() <= OTHERS_MAX {
            self.fail_over()?;
        }
        if self.strikes(self.mix.reverse) {
            self.reverse();
        }
        Ok(())
    }

    fn network_faults(&mut self) {
        let (now, half_open) = (self.now, self.rng.one_in(3));
        if self.strikes(self.mix.cut) {
            self.counts.cuts += 1;
            let which = self.below(self.downs.len() + self.agents.len());
            self.note(|| format!("cut {which}, half open: {half_open}"));
            match which.checked_sub(self.downs.len()) {
                None => {
                    let (hop, source, _) =
                        link(&mut self.relays, &mut self.downs, &mut self.target, which);
                    hop.cut(now, half_open, &mut self.rng, source);
                }
                Some(which) => {
                    let (agent, hop) = &mut self.agents[which];
                    hop.cut(now, half_open, &mut self.rng, agent);
                }
            }
        }
        if self.strikes(self.mix.partition) {
            let reachable = self.rng.one_in(2);
            // Mostly behind a relay: then its spool holds what nobody else does.
            let agents = if self.rng.one_in(3) { self.agents.len() } else { 0 };
            let which = self.below(self.downs.len() + agents);
            self.note(|| format!("hop {which} reachable: {reachable}"));
            match which.checked_sub(self.downs.len()) {
                None => self.downs[which].reachable = reachable,
                Some(which) => self.agents[which].1.reachable = reachable,
            }
        }
    }

    fn relay_faults(&mut self) {
        let which = self.below(self.relays.len());
        let lost = self.strikes(self.mix.lost_spool);
        if lost || self.strikes(self.mix.relay_crash) {
            self.relay_dies(which, lost);
        }
        if self.strikes(self.mix.relay_full) {
            self.counts.full += 1;
            let (full, refuses) = (self.rng.one_in(2), self.rng.one_in(2));
            self.note(|| format!("relay {which} full: {full}, refuses: {refuses}"));
            (self.relays[which].full, self.relays[which].refuses) = (full, refuses);
            if self.bug == Bug::RelayDropsWhenFull && full {
                self.relays[which].make_room();
            }
        }
        if self.strikes(self.mix.relay_flush) {
            self.counts.failed_flushes += 1;
            self.note(|| format!("the next flush of relay {which} fails"));
            self.relays[which].fail_flush = Some(self.rng.next_u64());
        }
    }

    fn relay_dies(&mut self, which: usize, lost: bool) {
        self.counts.crashes += 1;
        self.note(|| format!("relay {which} dies, spool lost: {lost}"));
        let (now, rng) = (self.now, &mut self.rng);
        match which.checked_sub(1) {
            None => {
                for (agent, hop) in &mut self.agents {
                    hop.receiver_died(now, rng, agent, &mut self.relays[0]);
                }
            }
            Some(before) => {
                let (hop, source, sink) =
                    link(&mut self.relays, &mut self.downs, &mut self.target, before);
                hop.receiver_died(now, rng, source, sink);
            }
        }
        self.downs[which].sender_died(now);
        if lost {
            self.counts.lost_spools += 1;
            self.truth.spool_lost(self.writes);
            self.relays[which].lose_spool(&mut self.rng);
        } else {
            self.relays[which].crash(&mut self.rng);
        }
    }

    fn target_faults(&mut self) -> Result<(), String> {
        if self.strikes(self.mix.target_crash) {
            self.note(|| "the target dies".into());
            self.target_dies();
            self.truth.check(&self.target)?;
        }
        if self.strikes(self.mix.target_full) {
            self.counts.full += 1;
            (self.target.full, self.target.refuses) = (self.rng.one_in(2), self.rng.one_in(2));
            self.note(|| format!("target full: {}", self.target.full));
        }
        if self.strikes(self.mix.target_flush) {
            self.counts.failed_flushes += 1;
            self.note(|| "the target's next flush fails".into());
            self.target.fail_flush = Some(self.rng.next_u64());
        }
        if self.strikes(self.mix.rollback) {
            self.roll_back();
        }
        Ok(())
    }

    fn target_dies(&mut self) {
        self.counts.crashes += 1;
        let last = self.relays.len() - 1;
        let (hop, source, sink) = link(&mut self.relays, &mut self.downs, &mut self.target, last);
        hop.receiver_died(self.now, &mut self.rng, source, sink);
        self.target.crash(&mut self.rng);
    }

    /// The target's disk is replaced by an older copy of itself (fault F6).
    fn roll_back(&mut self) {
        let Some(backup) = self.backup.take() else {
            let mut copy = self.target.log.clone();
            copy.crash(&mut self.rng);
            self.backup = Some(copy);
            return;
        };
        self.counts.rollbacks += 1;
        self.target_dies();
        self.target.log = backup;
        self.note(|| "the target's disk goes back in time".into());
        self.truth.target_went_back(self.writes);
    }

    fn machine_faults(&mut self) {
        if self.strikes(self.mix.agent_crash) {
            self.note(|| "the agent dies".into());
            self.counts.crashes += 1;
            self.serial += 1;
            let (agent, hop) = &mut self.agents[0];
            agent.restarted(self.serial << 20);
            hop.sender_died(self.now);
        }
        if self.strikes(self.mix.revert) {
            self.revert();
        }
        if self.strikes(self.mix.clone) && self.agents.len() <= OTHERS_MAX {
            self.clone_agent();
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
                self.note(|| "the machine goes back to a snapshot".into());
                // It goes on and writes something else under the positions that it has used
                // already.
                self.write(0, 0);
            }
            Some(_) => {}
        }
    }

    /// A clone of the machine, agent's memory and all, with an instance of its own (trap T-11).
    fn clone_agent(&mut self) {
        self.note(|| "the machine is cloned".into());
        self.counts.clones += 1;
        let mut clone = self.agents[0].0.clone();
        clone.identity.instance = InstanceId::from_bytes([0xcc; 16]);
        self.add(clone);
    }

    fn add(&mut self, agent: Agent) {
        self.serial += 1;
        self.agents.push((agent, Hop::new(self.serial << 32, SenderOptions::default())));
    }

    /// The machine is off: relays within reach hand on what they hold (trap T-14). True when they
    /// did.
    fn drain(&mut self) -> bool {
        for (agent, hop) in &mut self.agents {
            hop.cut(self.now, false, &mut self.rng, agent);
        }
        for _ in 0..DRAIN_STEPS {
            let end = (self.target.log.durable(), self.target.log.tail_chain());
            if self.relays.iter().all(|relay| relay.end().is_none_or(|tail| tail == end)) {
                return self.relays.iter().all(|relay| relay.end().is_some());
            }
            self.step_down();
        }
        false
    }

    /// The target is promoted; the old side knows nothing of it and goes on sending.
    fn fail_over(&mut self) -> Result<(), String> {
        self.truth.check(&self.target)?;
        if self.rng.one_in(2) {
            // What takes the machine may take the power of its site for a while.
            for which in 0..self.relays.len() {
                if self.rng.one_in(2) {
                    self.relay_dies(which, false);
                }
            }
            let drained = self.bug == Bug::PromotedWithoutDrain || self.drain();
            self.counts.drained += u64::from(drained);
            self.note(|| format!("drained: {drained}"));
            if drained {
                self.truth.check_drained(&self.target)?;
            }
        }
        self.target_dies();
        let (blocks, legal) = image(&self.target);
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
        self.relays.iter_mut().for_each(|relay| relay.instance = instance);
        self.truth.failed_over(&blocks);
        let identity = SourceIdentity {
            lineage,
            incarnation: Incarnation::new(self.serial << 20),
            instance,
            ..self.agents[0].0.identity.clone()
        };
        let mut agent = Agent::new(identity, blocks, (fork, chain), self.bug);
        agent.catch_ups = self.agents[0].0.catch_ups;
        self.left_behind = Some((self.agents[0].0.blocks, (fork, chain)));
        self.add(agent);
        let last = self.agents.len() - 1;
        self.agents.swap(0, last);
        (self.snapshot, self.backup) = (None, None);
        self.note(|| format!("failed over at {fork}"));
        Ok(())
    }

    /// Reprotect: the disks of the machine that failed become the target of the one that took over
    /// (design section 14.8). They hold what they held when it died, and may have rotted since.
    fn reverse(&mut self) {
        let Some((mut blocks, at)) = self.left_behind.take() else { return };
        self.counts.reversals += 1;
        if self.rng.one_in(3) {
            blocks = [self.writes + 1_000_000; BLOCKS];
        }
        self.target_dies();
        self.target = Target::home(&self.target, blocks, at);
        self.serial += 1;
        let (agent, hop) = &mut self.agents[0];
        agent.restarted(self.serial << 20);
        hop.sender_died(self.now);
        // What relays hold was on its way to a place that is no target any more.
        self.truth.spool_lost(self.writes);
        (self.snapshot, self.backup) = (None, None);
        self.note(|| "the direction is reversed".into());
    }
}
