//! What a guest finds in memory when it starts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cpio::Archive;
use crate::error::io_error;
use crate::{GuestError, Kernel, Spec, inside, libraries, modules};

const INIT: &[u8] = include_bytes!("init");
const DISK: &[u8] = include_bytes!("disk");
const LEAVE: &[u8] = include_bytes!("leave");

/// The archive for `spec`.
///
/// # Errors
/// When a program, module or file is missing here.
pub(crate) fn build(spec: &Spec, kernel: &Kernel) -> Result<Vec<u8>, GuestError> {
    let mut archive = skeleton()?;
    for program in &spec.programs {
        let program = libraries::find(program)?;
        add_program(&mut archive, &program, &place_of(&program))?;
    }
    if spec.this_test {
        let program = std::env::current_exe().map_err(io_error("find", "this program"))?;
        add_program(&mut archive, &program, Path::new(inside::PLACE))?;
    }
    for (from, to) in &spec.files {
        let metadata = std::fs::metadata(from).map_err(io_error("look at", from))?;
        let content = std::fs::read(from).map_err(io_error("read", from))?;
        archive.file(to, metadata.permissions().mode() & 0o777, &content);
    }
    let mut list = String::new();
    for module in modules::resolve(kernel, &spec.modules)? {
        let path = format!("/lib/modules/{}.ko", module.name);
        archive.file(Path::new(&path), 0o644, &modules::content(&module.file)?);
        list += &path;
        list.push('\n');
    }
    archive.file(Path::new("/modules"), 0o644, list.as_bytes());
    Ok(archive.finish())
}

/// Folders, busybox and our scripts.
fn skeleton() -> Result<Archive, GuestError> {
    let mut archive = Archive::default();
    for directory in ["proc", "sys", "dev", "run", "tmp", "mnt", "etc", "root", "busybox-links"] {
        archive.directory(Path::new(directory));
    }
    for directory in ["bin", "sbin", "lib", "lib64"] {
        let below_usr = format!("usr/{directory}");
        archive.directory(Path::new(&below_usr));
        archive.link(Path::new(directory), &below_usr);
    }
    archive.directory(Path::new("var/lib"));
    archive.link(Path::new("var/run"), "/run");
    archive.link(Path::new("var/tmp"), "/tmp");
    archive.link(Path::new("etc/mtab"), "/proc/mounts");
    archive.file(Path::new("etc/passwd"), 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file(Path::new("etc/group"), 0o644, b"root:x:0:\ndisk:x:6:\n");
    archive.file(Path::new("etc/hosts"), 0o644, b"127.0.0.1 localhost\n");
    let busybox = libraries::find("busybox")?;
    if !libraries::needed_by(&busybox)?.is_empty() {
        return Err(GuestError::NoProgram("busybox (linked statically)".to_owned()));
    }
    archive.file(Path::new("/busybox"), 0o755, &libraries::content(&busybox)?);
    // Busybox's shell prefers its own commands over programs of the same name: scripts of a test
    // get the shell of this machine.
    add_program(&mut archive, &libraries::find("sh")?, Path::new("/usr/bin/sh"))?;
    archive.file(Path::new("/init"), 0o755, INIT);
    archive.file(Path::new("/usr/local/bin/disk"), 0o755, DISK);
    archive.file(Path::new("/usr/local/bin/leave"), 0o755, LEAVE);
    Ok(archive)
}

/// A program goes where it is here; one from elsewhere, for instance from a build, to
/// `/usr/local/bin`.
fn place_of(program: &Path) -> PathBuf {
    let system = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib"];
    if system.iter().any(|directory| program.starts_with(directory)) {
        return program.to_owned();
    }
    Path::new("/usr/local/bin").join(program.file_name().unwrap_or_default())
}

fn add_program(archive: &mut Archive, program: &Path, place: &Path) -> Result<(), GuestError> {
    archive.file(place, 0o755, &libraries::content(program)?);
    for library in libraries::needed_by(program)? {
        if !archive.contains(&library) {
            archive.file(&library, 0o755, &libraries::content(&library)?);
        }
    }
    Ok(())
}
