//! Measure B2 by itself: `cargo run --release -p landfall-journal --features bench --example ingest -- DIRECTORY [full]`.

use landfall_journal::bench::{BenchError, Plan, ingest};
use std::path::PathBuf;

fn main() -> Result<(), BenchError> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let plan = if arguments.next().as_deref() == Some("full") { Plan::FULL } else { Plan::QUICK };
    for figure in ingest(&directory, plan)? {
        let (ours, peer) = (figure.ours_bytes_per_s / 1e6, figure.peer_bytes_per_s / 1e6);
        let met = if figure.met() { "met" } else { "NOT MET" };
        let (id, ratio, goal) = (&figure.id, figure.ratio, figure.goal);
        println!("{id:34} {ratio:5.2} (goal {goal:.1}, {met})  {ours:8.1} MB/s against {peer:8.1}");
    }
    Ok(())
}
