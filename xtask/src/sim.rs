//! `cargo xtask sim`: histories of the replication sessions under faults, for as long as one likes.

use anyhow::Result;
use clap::Args;

use crate::process;

/// The test that runs them.
const TEST: &str = "nothing_is_lost_mixed_or_forgotten_under_faults";

/// How much of it.
#[derive(Args)]
pub(crate) struct Options {
    /// For so many hours (may be a fraction)
    #[arg(long, conflicts_with = "seeds")]
    hours: Option<f64>,
    /// So many histories
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// Begin with this seed instead of a fresh one
    #[arg(long)]
    from: Option<u64>,
    /// Repeat the history of this seed only
    #[arg(long, conflicts_with_all = ["hours", "seeds", "from"])]
    seed: Option<u64>,
    /// Print what goes wrong in each history
    #[arg(long)]
    trace: bool,
}

/// Builds the simulation with optimisation and runs it; a history that fails is printed with its
/// seed at once.
///
/// # Errors
/// When it does not build, or a history fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = process::cargo(&[
        "test",
        "--release",
        "--package",
        "landfall-repl",
        "--test",
        "simulation",
        "--",
        TEST,
        "--exact",
        "--nocapture",
    ]);
    for (name, value) in environment(options) {
        command.env(name, value);
    }
    process::run(&mut command)
}

fn environment(options: &Options) -> Vec<(&'static str, String)> {
    let mut all = vec![];
    match (options.seed, options.hours) {
        (Some(_), _) => all.push(("LANDFALL_SIM_SEEDS", "1".to_owned())),
        (None, None) => all.push(("LANDFALL_SIM_SEEDS", options.seeds.to_string())),
        (None, Some(hours)) => {
            all.push(("LANDFALL_SIM_SECONDS", format!("{:.0}", (hours * 3600.0).ceil())));
        }
    }
    if let Some(seed) = options.seed.or(options.from) {
        all.push(("SEED", seed.to_string()));
    }
    if options.trace {
        all.push(("LANDFALL_SIM_TRACE", "1".to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn of(line: &str) -> Vec<(&'static str, String)> {
        let words = std::iter::once("sim").chain(line.split_whitespace());
        environment(&Line::try_parse_from(words).expect("a line").options)
    }

    #[test]
    fn one_seed_is_one_history() {
        let text = |value: &str| value.to_owned();
        assert_eq!(of(""), [("LANDFALL_SIM_SEEDS", text("20000"))]);
        assert_eq!(of("--hours 0.5"), [("LANDFALL_SIM_SECONDS", text("1800"))]);
        let one = [("LANDFALL_SIM_SEEDS", text("1")), ("SEED", text("7"))];
        assert_eq!(of("--seed 7"), one);
    }
}
