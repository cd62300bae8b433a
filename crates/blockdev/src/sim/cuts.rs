//! The power-cut enumerator (reliability: every write boundary × subsets of what was not synced).

use crate::sim::SimMedium;
use crate::sim::image::{Atom, Image, to_usize};
use crate::sim::medium::{fill_garbage, next_random};
use crate::sim::trace::{Op, Trace};

/// How thoroughly cuts are tried.
#[derive(Clone, Copy, Debug)]
pub struct CutOptions {
    /// Up to so many pending changes, all subsets of them are tried; beyond: none, all, each alone,
    /// all but one, prefixes, suffixes and `masks_random` random ones.
    pub exhaustive_max: u32,
    /// How many random subsets beyond that.
    pub masks_random: u32,
    /// Whether sectors that were being written may also hold garbage: each alone (beside all and
    /// beside none of the others), and in random mixes.
    pub garbage: bool,
    /// For the random subsets.
    pub seed: u64,
}

impl CutOptions {
    /// As reliability.md section 4.2 has it: for the long run.
    pub const THOROUGH: Self =
        Self { exhaustive_max: 12, masks_random: 2048, garbage: true, seed: 1 };
    /// For every run of the tests.
    pub const QUICK: Self = Self { exhaustive_max: 7, masks_random: 64, garbage: true, seed: 1 };
}

/// A medium as it may be found after a power cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The medium, with nothing recorded.
    pub medium: SimMedium,
    /// How many promises had been made before the cut.
    pub promises: usize,
    /// The step before which the power went (an index into [`Trace::ops`]); for messages.
    pub step: usize,
    /// Which pending changes are done (`1`), not done (`0`) or garbage (`x`), in order; for
    /// messages.
    pub mask: String,
}

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CutStat {
    /// Moments at which the power went.
    pub moments: u64,
    /// Media looked at.
    pub cuts: u64,
    /// Most changes that were pending at once.
    pub pending_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Done,
    Garbage,
}

/// Calls `check` with every medium that a power cut at any point of the recorded run may leave.
///
/// The power goes before every sync, before and after every promise, and at the end: a cut at any
/// other point leaves a medium that one of these leaves too. `check` panics when a promise is
/// broken.
pub fn for_each_power_cut(
    trace: &Trace,
    options: CutOptions,
    mut check: impl FnMut(&Cut),
) -> CutStat {
    let mut run = Run {
        durable: trace.initial.clone(),
        pending: trace.pending.clone(),
        promises: 0,
        stat: CutStat::default(),
        random: options.seed,
        options,
        trace,
        check: &mut check,
    };
    for (step, op) in trace.ops.iter().enumerate() {
        match op {
            Op::Change(change) => run.pending.push(change.0.clone()),
            Op::SyncFile(file) => {
                run.cut(step);
                run.settle(|atom| atom.file() == Some(*file));
            }
            Op::SyncDir(dir) => {
                run.cut(step);
                run.settle(|atom| atom.dir() == Some(*dir));
            }
            Op::SyncFailed(file, content) => {
                run.cut(step);
                run.pending.retain(|atom| atom.file() != Some(*file));
                run.durable.files.insert(*file, content.clone());
            }
            Op::Promise => {
                // Before it too: an order that breaks an older promise may be covered by the new
                // one.
                run.cut(step);
                run.promises += 1;
                run.cut(step + 1);
            }
        }
    }
    run.cut(trace.ops.len());
    run.stat
}

struct Run<'a> {
    trace: &'a Trace,
    options: CutOptions,
    durable: Image,
    pending: Vec<Atom>,
    promises: usize,
    random: u64,
    stat: CutStat,
    check: &'a mut dyn FnMut(&Cut),
}

impl Run<'_> {
    /// What `covered` picks is durable from here on.
    fn settle(&mut self, covered: impl Fn(&Atom) -> bool) {
        let (done, kept) = std::mem::take(&mut self.pending).into_iter().partition(|a| covered(a));
        let done: Vec<Atom> = done;
        self.pending = kept;
        done.iter().for_each(|atom| self.durable.apply(atom));
    }

    /// All subsets at this moment.
    fn cut(&mut self, step: usize) {
        let count = self.pending.len();
        self.stat.moments += 1;
        self.stat.pending_max = self.stat.pending_max.max(count);
        if count <= self.options.exhaustive_max as usize {
            for mask in 0..1_u64 << count {
                self.visit(step, |index| fate(mask >> index & 1 == 1));
            }
        } else {
            self.sampled(step, count);
        }
        if self.options.garbage {
            self.with_garbage(step, count);
        }
    }

    fn sampled(&mut self, step: usize, count: usize) {
        self.visit(step, |_| Fate::Lost);
        self.visit(step, |_| Fate::Done);
        for chosen in 0..count {
            self.visit(step, |index| fate(index == chosen));
            self.visit(step, |index| fate(index != chosen));
            self.visit(step, |index| fate(index < chosen));
            self.visit(step, |index| fate(index >= chosen));
        }
        for _ in 0..self.options.masks_random {
            let mask: Vec<bool> =
                (0..count).map(|_| next_random(&mut self.random) & 1 == 1).collect();
            self.visit(step, |index| fate(mask[index]));
        }
    }

    fn with_garbage(&mut self, step: usize, count: usize) {
        for chosen in 0..count {
            for others in [Fate::Lost, Fate::Done] {
                self.visit(step, |index| if index == chosen { Fate::Garbage } else { others });
            }
        }
        let mixes = if count < 2 { 0 } else { self.options.masks_random / 4 };
        for _ in 0..mixes {
            let mix: Vec<u64> = (0..count).map(|_| next_random(&mut self.random) % 3).collect();
            self.visit(step, |index| match mix[index] {
                0 => Fate::Lost,
                1 => Fate::Done,
                _ => Fate::Garbage,
            });
        }
    }

    fn visit(&mut self, step: usize, fate_of: impl Fn(usize) -> Fate) {
        let sector_bytes = u64::from(self.trace.sector_bytes);
        let mut garbage = vec![0; to_usize(sector_bytes)];
        let mut image = self.durable.clone();
        let mut mask = String::with_capacity(self.pending.len());
        for (index, atom) in self.pending.iter().enumerate() {
            match fate_of(index) {
                Fate::Lost => mask.push('0'),
                Fate::Done => {
                    mask.push('1');
                    image.apply(atom);
                }
                Fate::Garbage => {
                    mask.push('x');
                    fill_garbage(self.stat.cuts.wrapping_add(index as u64), &mut garbage);
                    image.apply_garbage(atom, sector_bytes, &garbage);
                }
            }
        }
        self.stat.cuts += 1;
        let medium = SimMedium::with_image(
            self.trace.sector_bytes,
            image,
            self.trace.next_id + 1_000_000,
            self.trace.key.clone(),
        );
        (self.check)(&Cut { medium, promises: self.promises, step, mask });
    }
}

const fn fate(done: bool) -> Fate {
    if done { Fate::Done } else { Fate::Lost }
}
