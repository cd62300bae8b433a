//! How many histories are run, from which seed on, and on how many threads.

use crate::mix::Counts;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures beyond these are counted only.
const SHOWN_MAX: usize = 20;
/// Pause between two lines about the progress of a long run.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) struct Night {
    first: u64,
    seeds: Option<u64>,
    time: Option<Duration>,
}

impl Night {
    /// `LANDFALL_SIM_SEEDS`: so many histories; `LANDFALL_SIM_SECONDS`: as many as fit. `SEED`: the
    /// first one.
    pub(crate) fn from_environment(default: u64) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok();
            text.map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
        };
        let time = number("LANDFALL_SIM_SECONDS").map(Duration::from_secs);
        let seeds = number("LANDFALL_SIM_SEEDS");
        let seeds = if time.is_some() { seeds } else { seeds.or(Some(default)) };
        Self { first: landfall_testkit::seed("simulation"), seeds, time }
    }

    /// One history is repeated.
    pub(crate) fn is_one(&self) -> bool {
        self.seeds == Some(1)
    }

    /// Runs all of them; gives what they contained together, and the failures.
    pub(crate) fn run(
        &self,
        history: impl Fn(u64) -> (Result<(), String>, Counts) + Sync,
    ) -> (Counts, Vec<String>) {
        let (next, begun) = (AtomicU64::new(0), Instant::now());
        let found = Mutex::new((Counts::default(), Vec::new(), begun));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let late = self.time.is_some_and(|time| begun.elapsed() >= time);
                if late || self.seeds.is_some_and(|seeds| n >= seeds) {
                    return;
                }
                let seed = self.first.wrapping_add(n);
                let (result, counts) = history(seed);
                let mut found = found.lock().expect("no thread panics with it");
                found.0.add(counts);
                if let Err(error) = result {
                    // At once: a night that is cut short has not been for nothing.
                    eprintln!("FAILED SEED={seed}: {error}");
                    if found.1.len() < SHOWN_MAX {
                        found.1.push(format!("SEED={seed}: {error}"));
                    }
                }
                if found.2.elapsed() > REPORT_INTERVAL {
                    found.2 = Instant::now();
                    eprintln!("{} histories, {:?}", n + 1, begun.elapsed());
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let histories = next.load(Ordering::Relaxed).saturating_sub(threads as u64);
        eprintln!("{histories} histories in {:?} on {threads} threads", begun.elapsed());
        let (counts, failed, _) = found.into_inner().expect("no thread panics with it");
        (counts, failed)
    }
}
