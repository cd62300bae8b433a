//! Replicas on a retention volume. A replica is an image plus an ordered log of writes; this crate
//! shows its content at any position, makes branches, folds the image forward, and enforces durably
//! who may write.
//!
//! ```text
//!   view at (log, LSN)  =  records of the log up to LSN
//!                          over records of the parent log up to the fork, …
//!                          over the image, which holds everything up to `folded`
//! ```
//!
//! # Invariants
//! * The role is durable before it holds, and is restored by [`Vault::open_replica`]: the resource
//!   enforces, the configuration server only asks (design section 7).
//! * Applying frames to a log and writing it through an export exclude each other by type: a log is
//!   held as
//!   [`AppliedLog`] or as [`BranchLog`], and neither has the other's method.
//! * A position is shown only where no window is open (trap T-4) and no disk's content is fuzzy
//!   (trap T-5).
//! * Fold stops only at recovery points (trap T-6), never past what a view, branch or kept
//!   divergence needs, and says so durably before it overwrites the first block.
//! * Every payload is checked against its CRC when it is read: corrupt bytes are never served
//!   (promise P5).
//! * Two branches are never writable in one epoch, and an epoch number is used once (trap T-17).
//!
//! # Locking table
//! What may go on at the same time in one replica. `+` at the same time; `w` one waits for the
//! other, for a write of the superblock at most unless a note says more; `-` refused.
//!
//! | | ingest | open | read | write | fold | undo | role | drop | merge |
//! |---|---|---|---|---|---|---|---|---|---|
//! | **ingest**: frames, catch-up data | w1 | + | + | + | + | - | w2 | + | +3 |
//! | **open**: a view, a branch | | w | + | + | w4 | w4 | w | w | + |
//! | **read**: view, branch, hash, zeroes | | | + | + | w5 | w4 | + | -6 | + |
//! | **write**: a branch | | | | w1 | w5 | w4 | w2 | w6 | +3 |
//! | **fold** | | | | | w7 | w8 | w | w | + |
//! | **undo**: fold with undo, undo, release | | | | | | w7 | w | w | + |
//! | **role**: freeze, promote, commit, demote, follow | | | | | | | w | w | + |
//! | **drop**: a test branch, divergence | | | | | | | | w | +9 |
//! | **merge**: writing and merging runs of the index | | | | | | | | | w |
//!
//! 1. One append to a log at a time; the flush is shared. Different logs do not meet, and one log
//!    is never both applied and written: the types exclude it.
//! 2. The change waits for the append that goes on; behind it the log refuses:
//!    [`IngestError::NotReplicating`], [`ContentError::Revoked`].
//! 3. Where the merging thread is four tails behind, the append writes a run itself.
//! 4. Only while the fold ends: it raises the floor and trims the log. A fold that would pass an
//!    open view or branch is refused before it begins: [`FoldError::Pinned`]; one that has begun
//!    lets none be opened before its end position.
//! 5. As 4: readers go on while the image is written, because the records lie over it.
//! 6. The last write of the branch ends first; reads and writes behind it are refused with
//!    [`ContentError::Revoked`]. A view keeps what it needs of a log whose branch is dropped.
//! 7. One fold or undo at a time: the other one waits until it has ended.
//! 8. A fold beside an undo that is kept is refused: [`FoldError::UndoKept`].
//! 9. Files that are removed stay readable for whoever has them open.
//!
//! What keeps records from being folded is listed by [`Replica::holds`], who reads which runs by
//! [`Replica::index_readers`], and what is being merged by [`Replica::indexes`].
//!
//! # Where to start
//! [`Replica`], then `tree.rs` (which records make up a content), `timeline.rs` (which positions
//! are recovery points),
//! `index.rs` (who holds which bytes), `replica/promote.rs`. Normative format:
//! `docs/formats/volume.md`.
//!
//! # Deliberately absent
//! A clock and the network: whoever calls brings the time and the frames.

mod body;
mod error;
mod export;
mod frame;
mod images;
mod index;
mod line;
mod medium;
mod ranks;
mod replica;
mod retention;
mod store;
mod sums;
mod sync;
mod timeline;
mod tree;
mod vault;

pub use body::{
    Attestation, BaseContent, BranchEntry, Demoted, DivergenceEntry, ImageCopy, ImageOwner, Pin,
    PointNote, ReplicaDisk, Role,
};
pub use error::{ContentError, FoldError, IngestError, PointError, RoleError, StorageError};
pub use export::{DiskContent, ExportError, Exported, export, verify_export};
pub use images::{FsImages, Images, Qcow2Device, Qcow2Space, ReadOnlyImages};
pub use index::{IndexOptions, IndexPool};
pub use line::{AppliedLog, BranchLog, Newest};
pub use replica::{
    Branch, BranchStatus, Choices, Corrupt, DivergenceStatus, Due, DueCause, Estimate, FoldPace,
    FoldProgress, Frame, Hold, HoldKind, ImagePiece, IndexReader, IndexStatus, NewAuthority,
    NewTestBranch, OLD_DISKS, OldContent, PointsStatus, Released, Replica, ReplicaConfig,
    ReplicaStatus, Rot, ScrubReport, Standing, Unpaced, View, branch_incarnation, open_image,
    replica_key,
};
pub use retention::{Meter, Outlook, Projection, Rates, Room, ShortenCause, Shortened, project};
pub use timeline::{Point, PointSelector};
pub use vault::{ReplicaSummary, Vault};
