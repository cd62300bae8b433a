//! What a replica knows durably beside its logs and images: the body of its superblock.

use crate::replica::{Rot, ScrubReport};
use crate::timeline::Point;
use crate::tree::LogNode;
use landfall_crypt::Envelope;
use landfall_types::{
    BranchId, Chain, DiskGeometry, DiskId, DiskIndex, Epoch, InstanceId, Lineage, LogId, Lsn,
    MachineId, Marker, MarkerKind, ReplicaId, RetentionPolicy, WindowId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Durable role of a replica (design section 7): the resource enforces it, also after a restart and
/// without the configuration server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes frames of its epoch.
    Replicating,
    /// Takes nothing: between two roles.
    Frozen,
    /// A branch of it has authority.
    Writable,
    /// Its image was handed over to the machine.
    Released,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicating => "replicating",
            Self::Frozen => "frozen",
            Self::Writable => "writable",
            Self::Released => "released",
        })
    }
}

/// Who made an image, and so who may remove or resize it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageOwner {
    /// Landfall: a raw file, made empty, removed with the replica when that is asked for.
    Ours,
    /// Someone else (home's disks): opened exclusively, never resized, never removed.
    Foreign,
}

/// A disk of the replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaDisk {
    /// Its index in the log.
    pub index: DiskIndex,
    /// Ours.
    pub id: DiskId,
    /// Size and sectors at the folded position.
    pub geometry: DiskGeometry,
    /// Path of the image.
    pub image: String,
    /// Who made it.
    pub owner: ImageOwner,
}

/// What the image's content is worth at the start (design section 14.5, 14.8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseContent {
    /// Nothing: no position is a recovery point before an exact window over all disks has closed
    /// (traps T-5, T-15).
    Unknown,
    /// Exactly the machine's content at the folded position.
    Exact,
}

/// A branch that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BranchEntry {
    /// Ours.
    pub id: BranchId,
    /// Unique within the replica.
    pub name: String,
    /// Its log.
    pub log: LogId,
    /// Where it forked.
    pub fork: Lsn,
    /// The epoch that its records are written in.
    pub epoch: Epoch,
    /// Its history if it was given authority; none for a test branch.
    pub lineage: Option<Lineage>,
}

/// Writes that lost: readable until discarded by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DivergenceEntry {
    /// Name to discard it by.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// The log that holds it; none for what the old disks held.
    pub log: Option<LogId>,
    /// Its epoch; none for what the old disks held.
    pub epoch: Option<Epoch>,
    /// The last LSN that both histories share.
    pub after: Lsn,
    /// Its last record.
    pub through: Lsn,
    /// It was discarded.
    pub discarded: bool,
}

/// How far a first copy into the image has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageCopy {
    /// Its window.
    pub window: WindowId,
    /// Bytes from the start of each disk that are durable in the image.
    pub durable_bytes: Vec<(DiskIndex, u64)>,
}

/// The marker on which the image stands: its record may be gone, and with it the time of the oldest
/// point, perhaps of the only one (trap T-18).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FoldedMarker {
    /// Where: counts only while the image stands there.
    pub(crate) lsn: Lsn,
    pub(crate) kind: MarkerKind,
    pub(crate) time_unix_ns: u64,
    pub(crate) name: Option<String>,
    pub(crate) group: Option<[u8; 16]>,
}

impl From<FoldedMarker> for Point {
    fn from(folded: FoldedMarker) -> Self {
        let FoldedMarker { lsn, kind, time_unix_ns, name, group } = folded;
        Self { lsn, marker: Marker { kind, time_unix_ns, name, group } }
    }
}

impl From<Point> for FoldedMarker {
    fn from(point: Point) -> Self {
        let Point { lsn, marker: Marker { kind, time_unix_ns, name, group } } = point;
        Self { lsn, kind, time_unix_ns, name, group }
    }
}

/// A point that someone wants kept: as long as it can be chosen it stays listed, and one that is
/// pinned does not expire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointNote {
    /// The log that it was put on.
    pub log: LogId,
    /// Where: a marker.
    pub lsn: Lsn,
    /// A name given afterwards.
    pub name: Option<String>,
    /// The image does not pass it.
    pub pin: Option<Pin>,
}

/// Why a point is pinned, and how long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pin {
    /// Who asked for it.
    pub by: String,
    /// Milliseconds of the replica's clock of running time; none: until it is unpinned.
    pub until_ms: Option<u64>,
}

/// Where a fold with undo stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UndoPhase {
    /// The old content is saved; the image is being folded or has been.
    Saved,
    /// The old content is being put back.
    Undoing,
}

/// The old content of what a fold overwrote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct UndoEntry {
    /// Name of the undo file.
    pub(crate) file: String,
    /// The position that undoing returns to.
    pub(crate) from: Lsn,
    /// See [`BaseContent`]: as it was at `from`.
    pub(crate) base: BaseContent,
    /// Where it stands.
    pub(crate) phase: UndoPhase,
    /// Bytes that the fold writes into the images.
    pub(crate) folded_bytes: u64,
    /// Sizes and sectors of the disks at `from` (trap T-9). Entries of before this was kept have
    /// none: no disk has changed its size then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) geometry: Vec<(DiskIndex, DiskGeometry)>,
}

/// Where a scrub goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScrubPlace {
    /// In a log, behind this record.
    Log {
        /// Which.
        log: LogId,
        /// Its last record that was looked at.
        after: Lsn,
    },
    /// In an image.
    Image {
        /// Which disk.
        disk: DiskIndex,
        /// First byte that was not looked at.
        offset: u64,
    },
}

/// A scrub and the one before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ScrubState {
    /// None: a new one begins.
    pub(crate) place: Option<ScrubPlace>,
    /// What it has seen up to there.
    pub(crate) so_far: ScrubReport,
    /// The last one that came to its end.
    pub(crate) last: Option<ScrubReport>,
    /// What is rotten at present, whoever found it; an image's blocks leave it once they were
    /// written anew, records once they are forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rot: Vec<Rot>,
}

/// How far a fold has durably come: everything before it, in the order of disks and offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FoldMark {
    /// Disk.
    pub(crate) disk: DiskIndex,
    /// First byte that may still be missing.
    pub(crate) offset: u64,
}

/// Receipt of a demotion: allows exactly one promotion elsewhere (trap T-17).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Demoted {
    /// The epoch that has ended here.
    pub epoch: Epoch,
    /// Its last record.
    pub lsn: Lsn,
    /// The chain there.
    pub chain: Chain,
}

/// Somebody's word that the source is dead or shut off, on which a branch was given authority
/// without a configuration server (trap T-17).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attestation {
    /// The epoch that was begun on it.
    pub epoch: Epoch,
    /// The branch.
    pub branch: String,
    /// Who says it.
    pub by: String,
    /// What is said.
    pub word: String,
    /// When, by the clock of that machine.
    pub time_unix_ns: u64,
}

/// All of it. Every change is one new version of the superblock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) replica: ReplicaId,
    pub(crate) machine: MachineId,
    pub(crate) machine_name: String,
    /// The instance whose sessions are accepted (trap T-11).
    pub(crate) instance: InstanceId,
    pub(crate) role: Role,
    /// History of `log`.
    pub(crate) lineage: Lineage,
    /// Highest epoch number that this replica has seen in any order: a lower or equal one is
    /// refused for ever (T-17).
    pub(crate) epoch_highest: u64,
    /// The replica's log: the one that frames go to, in which points are chosen, and that the image
    /// follows.
    pub(crate) log: LogId,
    /// All logs and how they hang together.
    pub(crate) logs: Vec<LogNode>,
    pub(crate) disks: Vec<ReplicaDisk>,
    /// What the image is worth at `folded`.
    pub(crate) base: BaseContent,
    /// The image holds exactly the records up to here …
    pub(crate) folded: Lsn,
    /// The marker there, if there is one.
    pub(crate) folded_marker: Option<FoldedMarker>,
    /// … or, while a fold runs, some of those up to here: nothing before it can be shown any more.
    pub(crate) fold_through: Option<Lsn>,
    /// Checkpoint of that fold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fold_done: Option<FoldMark>,
    /// The disks were in other hands when the log ended here: what was compared before counts for
    /// nothing (trap T-15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) doubt: Option<Lsn>,
    /// How far the scrub has come, and what it has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scrub: Option<ScrubState>,
    /// Positions before it can't be chosen any more: the fork of the last commit (design section
    /// 1).
    pub(crate) points_from: Lsn,
    pub(crate) branches: Vec<BranchEntry>,
    /// The branch with authority; its log is `log` once it is committed.
    pub(crate) authority: Option<BranchId>,
    pub(crate) divergence: Vec<DivergenceEntry>,
    pub(crate) image_copy: Option<ImageCopy>,
    pub(crate) undo: Option<UndoEntry>,
    pub(crate) demoted: Option<Demoted>,
    pub(crate) retention: RetentionPolicy,
    /// Pinned and named points.
    pub(crate) notes: Vec<PointNote>,
    /// The wrapped data key; none where the content is not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<Envelope>,
    /// Promotions without a configuration server, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) attestations: Vec<Attestation>,
}

impl Body {
    /// The branch with authority.
    pub(crate) fn authority_branch(&self) -> Option<&BranchEntry> {
        let id = self.authority?;
        self.branches.iter().find(|branch| branch.id == id)
    }

    /// True once the branch with authority was committed: its log is the replica's.
    pub(crate) fn committed(&self) -> bool {
        self.authority_branch().is_some_and(|branch| branch.log == self.log)
    }

    /// The first position that can still be shown.
    pub(crate) fn horizon(&self) -> Lsn {
        self.fold_through.map_or(self.folded, |through| through.max(self.folded))
    }

    /// The marker on which the image stands.
    pub(crate) fn folded_point(&self) -> Option<Point> {
        let marker = self.folded_marker.clone();
        marker.filter(|marker| marker.lsn == self.folded).map(Point::from)
    }

    /// Records up to here are never needed again. With undo kept the image may go back, and
    /// whatever it holds meanwhile, the records say what the content is.
    pub(crate) fn floor(&self) -> Lsn {
        self.undo.as_ref().map_or(self.folded, |undo| undo.from.min(self.folded))
    }

    /// A disk by its index.
    pub(crate) fn disk(&self, index: DiskIndex) -> Option<&ReplicaDisk> {
        self.disks.iter().find(|disk| disk.index == index)
    }

    /// The history that has authority: the branch's while there is one, else the replica's own.
    pub(crate) fn lineage_in_force(&self) -> &Lineage {
        let branch = self.authority_branch().and_then(|branch| branch.lineage.as_ref());
        branch.unwrap_or(&self.lineage)
    }
}
