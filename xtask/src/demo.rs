//! `make demo`: from a clone to a running demo.

use anyhow::{Result, bail};

use crate::privilege::Privilege;
use crate::{metadata, packages, process, setup};

/// What the demo can't do without; each is a capability of `landfall_testkit`.
const NEEDED: &[&str] = &["root", "loop", "bpf", "fuse", "libnbd", "e2fsprogs"];

/// Installs what is missing, builds with optimisation, and becomes `landfall demo` run as root.
///
/// # Errors
/// When something is missing that can't be installed (each thing is named with its cure, and
/// nothing was changed), or when the build fails.
pub(crate) fn run(options: &[String]) -> Result<()> {
    setup::run()?;
    let privilege = Privilege::find();
    if !packages::can_build_capture() {
        bail!("the demo can't be built without the packages above");
    }
    let asks_only = options.iter().any(|option| option == "--help" || option == "-h");
    let missing = privilege.missing_capabilities();
    let missing: Vec<_> = missing.iter().filter(|one| NEEDED.contains(&one.name)).collect();
    if !missing.is_empty() && !asks_only {
        for capability in &missing {
            eprintln!("MISSING {}: {}", capability.name, capability.cure);
        }
        bail!("the demo needs what is missing above; nothing was changed");
    }
    let mut build = process::cargo(&["build", "--release", "--locked", "--package", "landfall"]);
    process::run(&mut build)?;
    let binary = metadata::load()?.target_directory.join("release/landfall");
    let mut demo = privilege.command(&binary.to_string_lossy());
    demo.arg("demo").args(options);
    process::replace_by(demo)
}
