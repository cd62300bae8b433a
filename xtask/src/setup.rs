//! Installs what is missing, or says what it is.

use anyhow::{Context, Result, bail};

use crate::packages::{self, Package};
use crate::privilege::Privilege;
use crate::process;

/// Installs the missing Debian packages. Where that is not possible it changes nothing, says
/// exactly what is missing and how to get it, and succeeds: the caller runs what can run.
///
/// # Errors
/// When apt fails although it may install.
pub(crate) fn run() -> Result<()> {
    let missing = packages::missing();
    if missing.is_empty() {
        return Ok(());
    }
    let privilege = Privilege::find();
    if privilege == Privilege::None || !process::exists("apt-get") {
        println!("{}", advice(&missing, process::exists("apt-get")));
        return Ok(());
    }
    println!("installing {} (takes a minute or two)", names(&missing));
    // A list that is some days old names files that the mirrors no longer have. Where the update
    // fails (no network) the install below says what is wrong.
    process::run(apt(privilege).args(["--quiet=2", "update"])).ok();
    install(privilege, &missing)
}

fn apt(privilege: Privilege) -> std::process::Command {
    let mut command = privilege.command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn install(privilege: Privilege, missing: &[Package]) -> Result<()> {
    // --no-remove: on a machine with packages from elsewhere apt may want to replace some (QEMU's
    // are known for it). It stops instead, and nothing has changed.
    let mut command = apt(privilege);
    command.args(["--quiet=2", "--yes", "--no-remove", "--no-install-recommends", "install"]);
    command.args(missing.iter().map(|package| package.name));
    let output = command.output().context("start apt-get")?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("{} failed; nothing else was changed", process::line(&command));
    }
    Ok(())
}

fn names(missing: &[Package]) -> String {
    missing.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
}

fn advice(missing: &[Package], has_apt: bool) -> String {
    let mut text = String::from("These packages are missing, and this user can't install them:\n");
    for package in missing {
        text += &format!("  {:<16} {}\n", package.name, package.why);
    }
    text += if has_apt {
        "Get them as root:\n  apt-get update && apt-get install --no-install-recommends "
    } else {
        "This is no Debian system. Get what corresponds to these Debian packages:\n  "
    };
    text + &names(missing) + "\nNothing was changed. What can run without them runs now."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_each_package_its_use_and_the_command() {
        let text = advice(packages::ALL, true);
        for package in packages::ALL {
            assert!(text.contains(package.name) && text.contains(package.why));
        }
        assert!(text.contains("apt-get install --no-install-recommends clang pkg-config"));
        assert!(text.contains("Nothing was changed"));
        assert!(!advice(packages::ALL, false).contains("apt-get"));
    }
}
