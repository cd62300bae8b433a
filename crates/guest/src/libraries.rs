//! Programs of this machine and the shared libraries that they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::GuestError;
use crate::error::io_error;

/// Where programs are, also those that only root's `PATH` has.
const ROOTS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/udev"];

/// The file of `program`: a name that is looked up, or a path.
pub(crate) fn find(program: &str) -> Result<PathBuf, GuestError> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ROOTS.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| GuestError::NoProgram(program.to_owned()))
}

/// The shared libraries of `program`, with the loader; none for a static program or a script.
pub(crate) fn needed_by(program: &Path) -> Result<BTreeSet<PathBuf>, GuestError> {
    let output = Command::new("ldd").arg(program).output().map_err(io_error("start", "ldd"))?;
    if !output.status.success() {
        return Ok(BTreeSet::new());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        let message = format!("{}: {}", program.display(), line.trim());
        return Err(GuestError::Tool { program: "ldd", message });
    }
    Ok(parse(&text))
}

/// Lines are `name => /path (0x…)`, `/path (0x…)` or, for what the kernel brings, `name (0x…)`.
fn parse(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let file = line.split_once("=>").map_or(line, |(_, file)| file);
            file.split_whitespace().next().filter(|file| file.starts_with('/'))
        })
        .map(PathBuf::from)
        .collect()
}

/// The program's bytes, without its debugging information where `strip` is there: the guest keeps
/// them in memory.
pub(crate) fn content(program: &Path) -> Result<Vec<u8>, GuestError> {
    const LARGE: u64 = 8 << 20;
    let read = || std::fs::read(program).map_err(io_error("read", program));
    let bytes = std::fs::metadata(program).map_err(io_error("look at", program))?.len();
    // What a package brings has been stripped already.
    if bytes < LARGE || program.starts_with("/usr") || program.starts_with("/lib") {
        return read();
    }
    let stripped = tempfile::NamedTempFile::new().map_err(io_error("create", "a file"))?;
    let done = Command::new("strip").arg("-o").arg(stripped.path()).arg(program).output();
    if done.is_ok_and(|output| output.status.success()) {
        return std::fs::read(stripped.path()).map_err(io_error("read", stripped.path()));
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = parse(text).into_iter().collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(parse("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = find("no-such-program-anywhere").expect_err("is missing");
        assert!(error.to_string().contains("no-such-program-anywhere"));
    }
}
