//! Packages from the mirror that this machine uses, without touching its own lists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Releases that have kernels of other series: a suite, and whether it is one of security updates.
const SUITES: [(&str, bool); 10] = [
    ("bullseye", false),
    ("bullseye-security", true),
    ("bookworm", false),
    ("bookworm-security", true),
    ("bookworm-backports", false),
    ("trixie", false),
    ("trixie-security", true),
    ("trixie-backports", false),
    ("forky", false),
    ("sid", false),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with certain lists.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// With the lists that this machine has.
    pub(crate) fn of_this_machine() -> Self {
        Self { options: Vec::new() }
    }

    /// With lists of their own, below `directory`, of all releases in [`SUITES`], from this
    /// machine's mirror.
    pub(crate) fn of_all_releases(directory: &Path) -> Result<Self> {
        let mirrors = mirrors()?;
        let find = |is_security: bool| {
            mirrors.iter().find(|uri| uri.contains("security") == is_security).cloned()
        };
        let mut sources = String::new();
        for (suite, is_security) in SUITES {
            let Some(mirror) = find(is_security) else { continue };
            sources += &format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        }
        let home = directory.join(".apt");
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(below))?;
        }
        let list = home.join("sources.list");
        fs::write(&list, sources)?;
        let option = |key: &str, path: &Path| format!("{key}={}", path.display());
        let apt = Self {
            options: vec![
                option("Dir::Etc::sourcelist", &list),
                "Dir::Etc::sourceparts=-".to_owned(),
                option("Dir::State::Lists", &home.join("lists")),
                option("Dir::Cache", &home.join("cache")),
                // A suite that the mirror does not have is no reason to do without the others.
                "APT::Get::List-Cleanup=false".to_owned(),
            ],
        };
        if let Err(error) = process::run(apt.command("apt-get").args(["--quiet=2", "update"])) {
            println!("not every release could be read: {error:#}");
        }
        Ok(apt)
    }

    /// The names of all packages that may hold a kernel.
    pub(crate) fn kernel_packages(&self) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        let text = output(command.args(["pkgnames", "linux-image-"]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads `package` into `directory`.
    pub(crate) fn download(&self, package: &str, directory: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        // As root apt would give up its rights first, and then could not write to the folder.
        command.args(["--option", "APT::Sandbox::User=root", "--quiet=2", "download", package]);
        process::run(command.current_dir(directory))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["--option", option]);
        }
        command
    }
}

/// The address that this machine's packages come from, but for those of security updates.
pub(crate) fn mirror() -> Result<String> {
    let plain = mirrors()?.into_iter().find(|uri| !uri.contains("security"));
    plain.context("this machine has no mirror of Debian")
}

/// The addresses that this machine's own packages come from.
fn mirrors() -> Result<BTreeSet<String>> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"]);
    let text = output(&mut command)?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("Debian ")).map(str::to_owned).collect())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| process::line(command))?;
    if !output.status.success() {
        bail!("{}: {}", process::line(command), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
