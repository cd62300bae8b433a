//! What this machine can and can't run.

use anyhow::Result;

use crate::packages;
use crate::privilege::Privilege;

/// Prints packages and capabilities with the cure of each that is missing.
///
/// # Errors
/// Never; the signature is that of a task.
pub(crate) fn run() -> Result<()> {
    let privilege = Privilege::find();
    println!("root: {privilege:?}\n\npackages");
    for package in packages::ALL {
        let state = if package.is_there() { "ok     " } else { "MISSING" };
        println!("  {state} {:<16} {}", package.name, package.why);
    }
    println!("\ncapabilities");
    let missing = privilege.missing_capabilities();
    for capability in landfall_testkit::ALL {
        match missing.iter().find(|one| one.name == capability.name) {
            None => println!("  ok      {}", capability.name),
            Some(one) => println!("  MISSING {:<16} {}", one.name, one.cure),
        }
    }
    Ok(())
}

/// Prints the names of the missing capabilities, one a line.
///
/// # Errors
/// Never; the signature is that of a task.
pub(crate) fn probe() -> Result<()> {
    for capability in landfall_testkit::ALL {
        if !capability.is_available() {
            println!("{}", capability.name);
        }
    }
    Ok(())
}
