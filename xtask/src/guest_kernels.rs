//! Fetches kernels of Debian for guests, and unpacks them without installing anything.
//!
//! Each becomes a folder `SERIES-FLAVOR` (for example `6.12-cloud`) of `target/guest-kernels`, with
//! the package's files as they are and the module lists of `depmod`. The crate `landfall-guest`
//! starts them.

mod apt;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{metadata, process};
use apt::Apt;
pub(crate) use apt::mirror;
use package::KernelPackage;

/// What to fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// The kernels in whose guests CI runs its tests, from this machine's own releases of Debian.
    Ci,
    /// The newest of every series and flavor, from all releases of Debian that the mirror has.
    All,
    /// The newest of these series and flavors, for example `6.12-rt`, from all releases.
    Named(Vec<String>),
}

/// Fetches what is missing.
///
/// # Errors
/// When the lists of packages can't be read. A kernel that can't be had is said, and is no error.
pub(crate) fn run(which: &Which) -> Result<()> {
    let directory = directory()?;
    fs::create_dir_all(&directory)?;
    if *which == Which::Ci
        && landfall_testkit::GUEST_KERNELS.iter().all(|n| is_there(&directory, n))
    {
        return Ok(());
    }
    let apt = match which {
        Which::Ci => Apt::of_this_machine(),
        Which::All | Which::Named(_) => Apt::of_all_releases(&directory)?,
    };
    let newest = package::newest(&apt.kernel_packages()?);
    for package in newest.iter().filter(|package| is_wanted(which, package)) {
        if is_there(&directory, &package.folder()) {
            continue;
        }
        // One that can't be had is no reason to do without the others.
        if let Err(error) = fetch(&apt, &directory, package) {
            println!("{}: {error:#}", package.name);
        }
    }
    let expected = match which {
        Which::All => Vec::new(),
        Which::Ci => landfall_testkit::GUEST_KERNELS.map(str::to_owned).to_vec(),
        Which::Named(names) => names.clone(),
    };
    for name in expected.iter().filter(|name| !is_there(&directory, name)) {
        println!("no kernel {name} on this machine's mirror: tests in its guests are skipped");
    }
    Ok(())
}

/// Fetches CI's kernels where their guests can run; a mirror that is out of reach is said, and then
/// the tests that need them say that they are skipped.
pub(crate) fn run_for_tests() {
    if landfall_testkit::missing(&["qemu"]).is_some() || !process::exists("apt-get") {
        return;
    }
    if let Err(error) = run(&Which::Ci) {
        println!("no kernels for guests: {error:#}");
    }
}

fn directory() -> Result<PathBuf> {
    match std::env::var_os("LANDFALL_GUEST_KERNELS") {
        Some(path) => Ok(path.into()),
        None => Ok(metadata::load()?.target_directory.join("guest-kernels")),
    }
}

fn is_there(directory: &Path, name: &str) -> bool {
    directory.join(name).is_dir()
}

fn is_wanted(which: &Which, package: &KernelPackage) -> bool {
    match which {
        Which::All => true,
        Which::Ci => landfall_testkit::GUEST_KERNELS.contains(&package.folder().as_str()),
        Which::Named(names) => names.contains(&package.folder()),
    }
}

/// Fetches and unpacks one package. The folder gets its name last, so that an interrupted fetch
/// leaves none that looks complete.
fn fetch(apt: &Apt, directory: &Path, package: &KernelPackage) -> Result<()> {
    println!("fetching {} for guests", package.name);
    let work = directory.join(format!(".{}", package.folder()));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    apt.download(&package.name, &work)?;
    let archive = fs::read_dir(&work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&work))?;
    fs::remove_file(&archive)?;
    depmod(&work)?;
    fs::rename(&work, directory.join(package.folder()))?;
    Ok(())
}

/// The packages leave the module lists to their installation.
fn depmod(root: &Path) -> Result<()> {
    let usr = root.join("usr");
    let base = if usr.join("lib/modules").is_dir() { usr } else { root.to_owned() };
    // Debian's kernels from 7.0 on have them in a package of their own, which is not fetched yet.
    let modules = fs::read_dir(base.join("lib/modules")).ok().and_then(|mut all| all.next());
    let release = modules.and_then(|entry| entry.ok()?.file_name().into_string().ok());
    let Some(release) = release else { bail!("the package holds no modules") };
    // With -b the lists are looked for below lib/, wherever the distribution keeps them itself.
    process::run(Command::new("depmod").arg("-b").arg(&base).arg(release))
}
