use super::{Opened, storage};
use crate::args::RekeyArgs;
use crate::failure::Failure;
use crate::output::{self, Format};
use landfall_api_types::{ApiError, codes};
use landfall_types::ReplicaId;
use serde::Serialize;

/// A replica whose data key was wrapped anew.
#[derive(Debug, Serialize)]
struct Rekeyed {
    replica: ReplicaId,
    machine_name: String,
    from: String,
    to: String,
}

/// Wraps data keys anew, one replica after the other: cut off, the rest has its former key.
pub(super) fn rekey(args: &RekeyArgs, format: Format) -> Result<(), Failure> {
    let opened = Opened::writable(&args.path, args.key.clone())?;
    let mut done = Vec::new();
    for replica in opened.find(args.machine.as_deref())? {
        let summary = opened.vault.summary(replica).map_err(|error| storage(&error))?;
        let Some((summary, from)) = summary.and_then(|s| s.key.clone().map(|key| (s, key))) else {
            continue;
        };
        opened.vault.rekey(replica, &args.to).map_err(|error| storage(&error))?;
        let (machine_name, to) = (summary.machine_name, args.to.to_string());
        done.push(Rekeyed { replica, machine_name, from, to });
    }
    if done.is_empty() {
        let cause = format!("{} holds no such replica that is encrypted", opened.path.display());
        return Err(ApiError::new(&codes::NOT_FOUND, cause).into());
    }
    output::print(format, &done, |done| {
        let line = |one: &Rekeyed| {
            format!("{} ({}): {} instead of {}", one.machine_name, one.replica, one.to, one.from)
        };
        done.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}
