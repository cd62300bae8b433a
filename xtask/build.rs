//! Tells xtask for which target it is built: cargo names a runner by it.

fn main() {
    let target = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=LANDFALL_XTASK_TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
