use super::{Opened, refused, role, storage};
use crate::args::{ExportArgs, ImageFormat};
use crate::failure::Failure;
use crate::output::{self, Format, bytes};
use indicatif::{ProgressBar, ProgressStyle};
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{BlockDevice, FileDevice, OpenMode};
use landfall_types::{DiskIndex, Lsn, ReplicaId};
use landfall_volume::{
    DiskContent, ExportError, Exported, Qcow2Device, Qcow2Space, Replica, RoleError,
    export as copy, verify_export,
};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    replica: ReplicaId,
    machine_name: String,
    disk: u16,
    /// The position; of a branch its newest.
    lsn: Lsn,
    file: PathBuf,
    size_bytes: u64,
    written_bytes: u64,
    /// BLAKE3 of the whole disk, as it was read and as it was read back.
    blake3: String,
}

/// Copies a disk, reads the copy back, and only then gives it its name.
pub(super) fn export(args: &ExportArgs, format: Format) -> Result<(), Failure> {
    if args.to.exists() {
        let cause = format!("{} exists", args.to.display());
        return Err(ApiError::new(&codes::BAD_REQUEST, cause).cure("name a new file").into());
    }
    let opened = Opened::open(&args.volume)?;
    let (id, replica) = opened.one(&args.machine)?;
    let (content, lsn) = content(&replica, args).map_err(|error| role(&error))?;
    let exported = to_file(&*content, args).map_err(|error| failed(&error))?;
    let machine_name =
        replica.status().map(|status| status.machine_name).map_err(|error| storage(&error))?;
    let made = Made {
        replica: id,
        machine_name,
        disk: args.disk,
        lsn,
        file: args.to.clone(),
        size_bytes: exported.size_bytes,
        written_bytes: exported.written_bytes,
        blake3: exported.hash.to_hex().to_string(),
    };
    output::print(format, &made, |made| {
        format!(
            "{}: disk {} of {} at LSN {}, {} of {} written, read back and equal\nblake3 {}",
            made.file.display(),
            made.disk,
            made.machine_name,
            made.lsn,
            bytes(made.written_bytes),
            bytes(made.size_bytes),
            made.blake3
        )
    });
    Ok(())
}

fn content(replica: &Replica, args: &ExportArgs) -> Result<(Arc<dyn DiskContent>, Lsn), RoleError> {
    if let Some(name) = &args.branch {
        let branch = replica.branch(name);
        let branch = branch.ok_or_else(|| RoleError::UnknownBranch(name.clone()))?;
        let head = branch.head();
        return Ok((branch, head));
    }
    let view = match &args.divergence {
        Some(name) => replica.divergence_view(name)?,
        None => replica.view(&args.selector())?,
    };
    let at = view.at();
    Ok((Arc::new(view), at))
}

/// Under another name first: a file that was cut off does not look like a disk.
fn to_file(content: &dyn DiskContent, args: &ExportArgs) -> Result<Exported, ExportError> {
    let disk = DiskIndex(args.disk);
    let unknown = landfall_volume::ContentError::UnknownDisk(disk);
    let size = content.geometry(disk).ok_or(unknown)?.size_bytes;
    let mut partial = args.to.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let device = |doing| {
        move |source| ExportError::Copy(landfall_volume::StorageError::Device { doing, source })
    };
    let _ = std::fs::remove_file(&partial);
    let copy_to: Box<dyn BlockDevice> = match args.format() {
        ImageFormat::Raw => {
            Box::new(FileDevice::create(&partial, size).map_err(device("make the copy"))?)
        }
        ImageFormat::Qcow2 => {
            let made = Qcow2Device::create(&partial, size, Qcow2Space::Thin);
            made.map_err(device("make the copy"))?;
            let opened = Qcow2Device::open(&partial, OpenMode::ReadWrite);
            Box::new(opened.map_err(device("open the copy"))?)
        }
    };
    let bar = bar(size, "copied");
    let exported = copy(content, disk, &*copy_to, &mut |done| bar.set_position(done))?;
    drop(copy_to);
    bar.finish_and_clear();
    let copied = open(&partial, args.format()).map_err(device("open the copy"))?;
    let bar = self::bar(size, "read back");
    verify_export(&exported, &*copied, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    name(&partial, &args.to).map_err(|error| {
        let action = landfall_blockdev::Action::Rename;
        let target = args.to.display().to_string();
        device("name the copy")(landfall_blockdev::DeviceError::from_io(action, &target, error))
    })?;
    Ok(exported)
}

fn open(
    path: &Path,
    format: ImageFormat,
) -> Result<Box<dyn BlockDevice>, landfall_blockdev::DeviceError> {
    Ok(match format {
        ImageFormat::Raw => Box::new(FileDevice::open(path, OpenMode::ReadOnly)?),
        ImageFormat::Qcow2 => Box::new(Qcow2Device::open(path, OpenMode::ReadOnly)?),
    })
}

fn name(partial: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(partial, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// On a terminal alone.
fn bar(size: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} {bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    let bar = ProgressBar::new(size).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn failed(error: &ExportError) -> Failure {
    match error {
        ExportError::Content(landfall_volume::ContentError::Storage(source)) => storage(source),
        ExportError::Content(source) => refused("not-found", source),
        ExportError::Copy(source) => storage(source),
        ExportError::Differs => refused("verify-failed", error),
    }
}
