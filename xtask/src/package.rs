//! `cargo xtask package`: the Debian package of the agent (and of every other role: it is one
//! binary), built by dpkg-deb from `packaging/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{metadata, process};

/// A file of the package: where it comes from, where it goes, its rights.
struct Entry {
    from: PathBuf,
    to: &'static str,
    mode: u32,
}

/// What goes where. Hooks are examples: an administrator decides which are called.
// tidy: table
const FILES: &[(&str, &str, u32)] = &[
    (
        "packaging/systemd/landfall-agent.service",
        "usr/lib/systemd/system/landfall-agent.service",
        0o644,
    ),
    ("packaging/systemd/landfall-save", "usr/lib/systemd/system-shutdown/landfall", 0o755),
    ("packaging/initramfs-tools/hook", "usr/share/initramfs-tools/hooks/landfall", 0o755),
    (
        "packaging/initramfs-tools/local-premount",
        "usr/share/initramfs-tools/scripts/local-premount/landfall",
        0o755,
    ),
    (
        "packaging/initramfs-tools/local-bottom",
        "usr/share/initramfs-tools/scripts/local-bottom/landfall",
        0o755,
    ),
    (
        "packaging/dracut/module-setup.sh",
        "usr/lib/dracut/modules.d/95landfall/module-setup.sh",
        0o755,
    ),
    (
        "packaging/dracut/landfall-watch.sh",
        "usr/lib/dracut/modules.d/95landfall/landfall-watch.sh",
        0o755,
    ),
    (
        "packaging/dracut/landfall-restore.sh",
        "usr/lib/dracut/modules.d/95landfall/landfall-restore.sh",
        0o755,
    ),
    ("packaging/debian/agent.env", "etc/landfall/agent.env", 0o640),
    ("packaging/hooks/50-postgresql", "usr/share/doc/landfall/hooks/50-postgresql", 0o755),
    ("packaging/hooks/50-mysql", "usr/share/doc/landfall/hooks/50-mysql", 0o755),
    ("docs/operate/agent.md", "usr/share/doc/landfall/agent.md", 0o644),
    ("LICENSE", "usr/share/doc/landfall/copyright", 0o644),
    ("crates/capture/src/bpf/LICENSE-GPL-2.0", "usr/share/doc/landfall/LICENSE-GPL-2.0", 0o644),
];

const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Builds the program with optimisation, then the package; prints its path. With `program` that one
/// is packed, and the package lies in `out`.
///
/// # Errors
/// When the program or the package can't be built.
pub(crate) fn run(program: Option<&Path>, out: Option<&Path>) -> Result<()> {
    let target = metadata::load()?.target_directory;
    let built = target.join("release/landfall");
    if program.is_none() {
        let release = ["build", "--release", "--locked", "--package", "landfall"];
        process::run(&mut process::cargo(&release))?;
    }
    let out = out.map_or_else(|| target.join("package"), Path::to_owned);
    fs::create_dir_all(&out).context("make the folder of the package")?;
    // It lies in the initramfs too: without what only a debugger needs.
    let stripped = out.join("landfall");
    let mut strip = Command::new("strip");
    process::run(strip.arg("-o").arg(&stripped).arg(program.unwrap_or(&built)))?;
    let package = build_deb(&stripped, &out)?;
    println!("{}", package.display());
    Ok(())
}

/// Builds the package with this program into `out`.
fn build_deb(binary: &Path, out: &Path) -> Result<PathBuf> {
    let tree = out.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).context("remove the tree of the package before")?;
    }
    let root = process::root();
    let program = Entry { from: binary.to_owned(), to: "usr/bin/landfall", mode: 0o755 };
    let files =
        FILES.iter().map(|(from, to, mode)| Entry { from: root.join(from), to, mode: *mode });
    for entry in files.chain([program]) {
        place(&entry, &tree.join(entry.to))?;
    }
    let hooks = tree.join("etc/landfall/hooks.d");
    fs::create_dir_all(&hooks).context("make the folder of the hooks")?;
    for dir in ["etc/landfall", "etc/landfall/hooks.d"] {
        // What is called as root, and the passphrase, are nobody else's to read or change.
        fs::set_permissions(tree.join(dir), fs::Permissions::from_mode(0o750))
            .with_context(|| format!("give {dir} its rights"))?;
    }
    for script in SCRIPTS {
        let from = root.join("packaging/debian").join(script);
        let entry = Entry { from, to: "", mode: 0o755 };
        place(&entry, &tree.join("DEBIAN").join(script))?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let size_kib = fs::metadata(binary).context("look at the program")?.len().div_ceil(1024);
    fs::write(tree.join("DEBIAN/control"), control(version, size_kib)).context("write control")?;
    fs::write(tree.join("DEBIAN/conffiles"), "/etc/landfall/agent.env\n")
        .context("write conffiles")?;
    let package = out.join(format!("landfall_{version}_amd64.deb"));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "-z1", "--build"]).arg(&tree).arg(&package);
    process::run(&mut command)?;
    Ok(package)
}

fn place(entry: &Entry, to: &Path) -> Result<()> {
    let dir = to.parent().context("files lie in folders")?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    fs::copy(&entry.from, to).with_context(|| format!("copy {}", entry.from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(entry.mode))
        .with_context(|| format!("give {} its rights", to.display()))
}

fn control(version: &str, size_kib: u64) -> String {
    format!(
        "Package: landfall
Version: {version}
Architecture: amd64
Maintainer: The Landfall developers <landfall@example.org>
Installed-Size: {size_kib}
Depends: libc6 (>= 2.36), libelf1 | libelf1t64, zlib1g, util-linux, passwd
Recommends: systemd
Section: admin
Priority: optional
Homepage: https://github.com/landfall-recovery/landfall
Description: site recovery: replicate machines, fail over to any point, come home
 The agent captures every write of a machine's disks without a kernel module, and
 sends them to another site, from where the machine can go on as it was at any
 moment. This package has the program for all roles, and the unit of the agent.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn output(command: &mut Command) -> String {
        let output = command.output().expect("starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Built with a stand-in for the program, unpacked, and looked at: what it says of itself,
    /// where things lie, and that the unit is one that systemd understands.
    #[test]
    fn the_package_is_whole() {
        if !process::exists("dpkg-deb") {
            eprintln!("SKIPPED: no dpkg-deb");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let binary = dir.path().join("landfall");
        fs::write(&binary, "#!/bin/sh\n").expect("writes");
        let package = build_deb(&binary, dir.path()).expect("builds");
        let field = |name| {
            output(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name)).trim().to_owned()
        };
        assert_eq!(field("Package"), "landfall");
        assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
        let unpacked = dir.path().join("unpacked");
        output(Command::new("dpkg-deb").arg("-R").arg(&package).arg(&unpacked));
        for (_, to, mode) in FILES {
            let metadata = fs::metadata(unpacked.join(to)).expect("is there");
            assert_eq!(metadata.mode() & 0o777, *mode, "{to}");
        }
        let conffiles = fs::read_to_string(unpacked.join("DEBIAN/conffiles")).expect("text");
        assert!(conffiles.lines().all(|path| unpacked.join(&path[1..]).exists()));
        for script in SCRIPTS {
            output(Command::new("sh").arg("-n").arg(unpacked.join("DEBIAN").join(script)));
        }
        for (from, ..) in FILES.iter().filter(|(from, ..)| from.contains("hooks/")) {
            output(Command::new("sh").arg("-n").arg(process::root().join(from)));
        }
    }

    #[test]
    fn systemd_understands_the_unit() {
        if !process::exists("systemd-analyze") {
            eprintln!("SKIPPED: no systemd-analyze");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let unit = dir.path().join("landfall-agent.service");
        let text = fs::read_to_string(process::root().join(FILES[0].0)).expect("readable");
        // It is not installed here: a program that is.
        fs::write(&unit, text.replace("/usr/bin/landfall", "/bin/true")).expect("writes");
        let verify = Command::new("systemd-analyze").arg("verify").arg(&unit).output();
        let verify = verify.expect("starts");
        let said = String::from_utf8_lossy(&verify.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("landfall")).collect();
        assert!(ours.is_empty(), "{said}");
    }
}
