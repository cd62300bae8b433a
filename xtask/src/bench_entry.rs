//! How `cargo xtask bench` gets a build of itself with the product's crates in it, optimised.

use anyhow::Result;

/// Starts the benchmarks: directly in the optimised build, by way of cargo in the plain one.
///
/// # Errors
/// When the optimised build or a benchmark fails.
pub(crate) fn run(options: &[String]) -> Result<()> {
    #[cfg(feature = "bench")]
    {
        crate::bench::run(options)
    }
    #[cfg(not(feature = "bench"))]
    {
        let mut cargo = crate::process::cargo(&["run", "--quiet", "--release", "--locked"]);
        cargo.args(["--package", "xtask", "--features", "bench", "--", "bench"]).args(options);
        crate::process::replace_by(cargo)
    }
}
