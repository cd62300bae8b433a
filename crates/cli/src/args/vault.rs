use super::point::PointArgs;
use clap::{Args, Subcommand, ValueEnum};
use landfall_crypt::KeySource;
use landfall_volume::PointSelector;
use std::path::PathBuf;

/// `landfall vault`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// List replicas, disks, logs, branches and points of a retention volume; changes nothing
    Inspect(InspectArgs),
    /// Give a branch at a point authority without the configuration server, on your word that the
    /// source is dead or shut off
    Promote(PromoteArgs),
    /// Copy a disk at a point into a raw or qcow2 file, and read it back
    Export(ExportArgs),
    /// Wrap the data key of encrypted replicas with another key; what they hold is not written
    Rekey(RekeyArgs),
}

/// `landfall vault rekey`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The former key is needed once more, and can go when the command has ended. Snapshots and copies of
the volume from before still open with it: where it was lost to others, protect the machines anew.

Example:
  landfall vault rekey /srv/retention --to file:/etc/landfall/volume-2.key")]
pub(crate) struct RekeyArgs {
    /// The retention volume, not in use by a master target
    pub(crate) path: PathBuf,
    /// The new key: file:PATH, keyring:DESCRIPTION or command:PATH ARGUMENTS
    #[arg(long, value_name = "KEY")]
    pub(crate) to: KeySource,
    /// The former key, if not the one that the volume names
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<KeySource>,
    /// Only this machine, or replica ID [default: all encrypted replicas]
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
}

/// What both look at.
#[derive(Clone, Debug, Args)]
pub(crate) struct VolumeArgs {
    /// The retention volume, not in use by a master target; may be mounted read-only
    pub(crate) path: PathBuf,
    /// Directory where the images are now, if not where the volume says
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Key of encrypted replicas, if not the one that the volume names: file:PATH,
    /// keyring:DESCRIPTION or command:PATH ARGUMENTS
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<KeySource>,
}

/// `landfall vault inspect`.
#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) volume: VolumeArgs,
    /// Only this machine, or replica ID
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
}

/// `landfall vault promote`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  systemctl stop landfall-master-target
  landfall vault promote /srv/retention --machine web-1 --by 'J. Doe, on call' \\
      --attest 'site A has no power since 03:10, breaker of rack 7 is locked open'
  systemctl start landfall-master-target")]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    pub(crate) volume: VolumeArgs,
    /// Machine, or replica ID
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: String,
    #[command(flatten)]
    point: PointArgs,
    /// How you know that the source writes no more; kept on the volume
    #[arg(long, value_name = "TEXT")]
    pub(crate) attest: String,
    /// Who says so; kept on the volume
    #[arg(long, value_name = "WHO")]
    pub(crate) by: String,
}

impl PromoteArgs {
    /// Which point of the replica.
    pub(crate) fn selector(&self) -> PointSelector {
        self.point.selector()
    }
}

/// `landfall vault export`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  landfall vault export /srv/retention --machine web-1 --disk 0 --at-time 2026-03-01T12:00:00Z \\
      --to /srv/web-1.qcow2")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) volume: VolumeArgs,
    /// Machine, or replica ID
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: String,
    /// Number of the disk
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) disk: u16,
    #[command(flatten)]
    point: PointArgs,
    /// The newest content of a branch instead of a point
    #[arg(long, value_name = "NAME", conflicts_with_all = ["which-point", "divergence"])]
    pub(crate) branch: Option<String>,
    /// What diverged, up to its end, instead of a point
    #[arg(long, value_name = "NAME", conflicts_with = "which-point")]
    pub(crate) divergence: Option<String>,
    /// File to make; one that is there is refused
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Format of the file; without it qcow2 for a name that ends in .qcow2, else raw
    #[arg(long, value_enum)]
    format: Option<ImageFormat>,
}

impl ExportArgs {
    /// Which point of the replica.
    pub(crate) fn selector(&self) -> PointSelector {
        self.point.selector()
    }

    /// In which format.
    pub(crate) fn format(&self) -> ImageFormat {
        let named = self.to.extension().is_some_and(|extension| extension == "qcow2");
        self.format.unwrap_or(if named { ImageFormat::Qcow2 } else { ImageFormat::Raw })
    }
}

/// Format of an image file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The disk's bytes, sparse
    Raw,
    /// QEMU's format
    Qcow2,
}
