use super::{Opened, role, storage};
use crate::args::PromoteArgs;
use crate::failure::Failure;
use crate::output::{self, Format};
use landfall_api_types::{ApiError, codes};
use landfall_types::{BranchId, Epoch, EpochId, Lsn, ReplicaId};
use landfall_volume::{Attestation, NewAuthority, Replica};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most bytes of each of the two texts that are kept.
const WORD_BYTES_MAX: usize = 1024;

/// What was done.
#[derive(Debug, Serialize)]
struct Promoted {
    replica: ReplicaId,
    machine_name: String,
    branch: String,
    epoch: Epoch,
    /// The point.
    fork: Lsn,
}

/// Gives a branch authority. What takes frames is frozen first, as a failover does it; a cut in
/// between leaves a frozen replica, on which the same command goes on.
pub(super) fn promote(args: &PromoteArgs, format: Format) -> Result<(), Failure> {
    for (what, text) in [("--attest", &args.attest), ("--by", &args.by)] {
        if text.trim().is_empty() || text.len() > WORD_BYTES_MAX {
            let cause = format!("{what} needs 1 to {WORD_BYTES_MAX} bytes of text");
            let cure = "say how you know that the source writes no more, and who says so";
            return Err(ApiError::new(&codes::NO_FENCE_PROOF, cause).cure(cure).into());
        }
    }
    let opened = Opened::writable(&args.volume.path, args.volume.key.clone())?;
    let (id, replica) = opened.one(&args.machine)?;
    let status = replica.status().map_err(|error| storage(&error))?;
    // Before anything changes: a point that can't be had leaves a replica that goes on.
    replica.resolve(&args.selector()).map_err(|error| role(&error))?;
    replica.freeze().map_err(|error| role(&error))?;
    let epoch = next_epoch(&replica, status.epoch_highest);
    let name = format!("epoch-{}", epoch.number);
    let new = NewAuthority {
        id: BranchId::generate(),
        name: name.clone(),
        point: args.selector(),
        epoch,
    };
    let attestation = Attestation {
        epoch,
        branch: name.clone(),
        by: args.by.clone(),
        word: args.attest.clone(),
        time_unix_ns: now_ns(),
    };
    let branch = replica.promote_attested(&new, attestation).map_err(|error| role(&error))?;
    let promoted = Promoted {
        replica: id,
        machine_name: status.machine_name,
        branch: name,
        epoch: branch.entry().epoch,
        fork: branch.entry().fork,
    };
    output::print(format, &promoted, |promoted| {
        format!(
            "branch {} of {} has authority from LSN {} on, in epoch {}\nits disks are served by \
             the master target as soon as it runs on this volume",
            promoted.branch, promoted.machine_name, promoted.fork, promoted.epoch.number
        )
    });
    Ok(())
}

/// Higher than any that this replica has seen; its ID tells it from one of the same number that a
/// configuration server may give elsewhere (trap T-17).
fn next_epoch(replica: &Replica, highest: u64) -> Epoch {
    let random = BranchId::generate();
    // The second half of a UUID is random but for two bits.
    let mut id = [0; 8];
    id.copy_from_slice(&random.as_bytes()[8..]);
    let parent = replica.status().ok().map(|status| status.epoch.id);
    Epoch { number: highest + 1, id: EpochId::new(u64::from_le_bytes(id)), parent }
}

/// For the record only.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
