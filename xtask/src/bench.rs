//! Benchmarks side by side with peers (design section 13): `cargo xtask bench [NAME…]`.
//!
//! A figure is a ratio against a peer or a physical limit, never a number alone. Ours and the peer
//! alternate within one run, a ratio is the median of the pairs' ratios, and each pair swaps who
//! comes first: what the machine does beside us hits both.
//!
//! # Where to start
//! [`figure::Figure`] is what is printed; [`pairs::compare`] is how two sides are measured. One
//! file for each benchmark: [`capture`] (B1), [`ingest`] (B2), [`view`] (B3), [`branch`] (B5),
//! [`fold`] (B6), [`wan`] (B8), [`depth`] (B5 and B9 over depth).

mod branch;
mod capture;
mod depth;
mod figure;
mod fio;
mod fold;
mod ingest;
mod nbd;
mod pairs;
mod peer;
mod scratch;
mod view;
mod wan;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use figure::Figure;
use std::time::Instant;

/// What is measured, and by what.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Effort) -> Result<Vec<Figure>>,
}

// tidy: table
const ALL: &[Benchmark] = &[
    Benchmark {
        name: "B1",
        about: "writes on a captured disk, against the same disk uncaptured (also: capture)",
        run: capture::run,
    },
    Benchmark {
        name: "B2",
        about: "durable ingest into the journal, against O_DIRECT over a file written before",
        run: ingest::run,
    },
    Benchmark {
        name: "B3",
        about: "reads of a view over NBD, against qemu-nbd on an overlay and nbdkit",
        run: view::run,
    },
    Benchmark {
        name: "B5",
        about: "order to branch → first block served, against a qcow2 overlay in qemu-nbd",
        run: branch::run,
    },
    Benchmark {
        name: "B9",
        about: "branch, view, reopening and memory over 10⁴ to 10⁷ records (with B5's curve)",
        run: depth::run,
    },
    Benchmark {
        name: "B6",
        about: "fold, against the same extents written in disk order with O_DIRECT",
        run: fold::run,
    },
    Benchmark {
        name: "B8",
        about: "bytes over the wide area for recorded churn, against zstd -3",
        run: wan::run,
    },
];

/// Runs benchmarks side by side with their peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Which (B1, B2, B3, B5, B6, B8, B9); all when none is named
    names: Vec<String>,
    /// Few and short pairs: ends within a minute, and means less
    #[arg(long)]
    quick: bool,
    /// How figures are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effort {
    Quick,
    Full,
}

/// Runs what `options` names.
///
/// # Errors
/// When a name is unknown, or a benchmark breaks; a goal that is missed is no error.
pub(crate) fn run(options: &[String]) -> Result<()> {
    let command_line =
        std::iter::once("cargo xtask bench").chain(options.iter().map(String::as_str));
    let options = Options::parse_from(command_line);
    let effort = if options.quick { Effort::Quick } else { Effort::Full };
    let mut figures = Vec::new();
    for benchmark in chosen(&options.names)? {
        eprintln!("{}: {}", benchmark.name, benchmark.about);
        let began = Instant::now();
        figures.extend((benchmark.run)(&effort)?);
        eprintln!("{}: done in {:.0} s", benchmark.name, began.elapsed().as_secs_f64());
    }
    match options.output {
        Output::Text => print!("{}", figure::table(&figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Benchmark>> {
    // The name of what is measured, for whoever has no table of numbers at hand.
    let names: Vec<&str> = names
        .iter()
        .map(|name| if name.eq_ignore_ascii_case("capture") { "B1" } else { name.as_str() })
        .collect();
    let find = |name: &str| ALL.iter().find(|one| one.name.eq_ignore_ascii_case(name));
    if let Some(unknown) = names.iter().find(|name| find(name).is_none()) {
        let known: Vec<_> = ALL.iter().map(|one| one.name).collect();
        bail!("{unknown} is no benchmark; there are {}", known.join(", "));
    }
    let wanted = |one: &&Benchmark| {
        names.is_empty() || names.iter().any(|name| one.name.eq_ignore_ascii_case(name))
    };
    Ok(ALL.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::{ALL, chosen};

    #[test]
    fn names_choose_in_any_case_and_unknown_ones_are_refused() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&names).map(|found| found.iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(named(&[]).expect("all").len(), ALL.len());
        assert_eq!(named(&["b2"]).expect("one"), ["B2"]);
        assert_eq!(named(&["capture"]).expect("by its other name"), ["B1"]);
        assert!(named(&["B2", "B99"]).is_err());
    }
}
