//! Loads the capture, and says why it can't be.

use super::RunConfig;
use super::catch_up::CatchUpError;
use crate::settled::Ancestry;
use crate::source::Past;
use crate::state::StateError;
use landfall_api_types::{ApiError, codes};
use landfall_capture::{Capture, CaptureError, Disk, Fallback, Target};
use landfall_types::{ByteRange, DiskIndex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a part of a former run may still use its capture: a barrier's time, and more.
const IN_USE_MAX: Duration = Duration::from_secs(40);
const IN_USE_PAUSE: Duration = Duration::from_millis(20);

/// Loads the capture, or goes on with what is pinned; the self-test is part of it.
pub(super) async fn load(config: &RunConfig) -> Result<Arc<Capture>, ApiError> {
    let start = &config.start;
    let targets: Vec<Target> = start
        .disks
        .iter()
        .map(|disk| Target { disk: disk.index, path: disk.path.clone().into() })
        .collect();
    let mut options = config.capture.clone();
    // What the bitmap says is relative to this replica.
    options.owner = u128::from_be_bytes(*start.replica.as_bytes());
    options.excluded = excluded(config);
    let noted = config.settled.note_excluded(&options.excluded);
    if !noted.map_err(|error| not_noted(&error))? {
        tracing::warn!("a part of a disk is no swap any more: what is pinned is of no use");
        detach(config).await?;
    }
    options.fallback = Fallback::Bitmap;
    let capture = tokio::task::spawn_blocking(move || Capture::start(&targets, options))
        .await
        .map_err(|error| ApiError::new(&codes::INTERNAL, error.to_string()))?
        .map_err(|error| refused(&error))?;
    for (disk, (_, found)) in start.disks.iter().zip(capture.disks()) {
        if disk.geometry != found.geometry {
            let cause = format!("{} is not as it was when it was protected", disk.path);
            return Err(ApiError::new(&codes::DISK_MISMATCH, cause)
                .detail("protected", disk.geometry.size_bytes)
                .detail("found", found.geometry.size_bytes));
        }
    }
    let noted = config.settled.note_incarnation(capture.incarnation());
    noted.map_err(|error| not_noted(&error))?;
    Ok(Arc::new(capture))
}

/// Makes the area in which the bitmap is kept over a restart; without one a restart compares.
pub(super) async fn prepare_restart(config: &RunConfig) {
    let Some(area) = config.area.clone() else { return };
    let prepared = tokio::task::spawn_blocking(move || crate::reboot::area::prepare(&area)).await;
    match prepared {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = with_causes(&error);
            tracing::warn!(error, "a restart of the machine will compare all disks");
        }
        Err(error) => tracing::error!(%error, "a restart of the machine will compare all disks"),
    }
}

/// A run that nothing was known of before.
pub(super) fn forget_past(config: &RunConfig) -> Result<(), ApiError> {
    let none = config.settled.write_ancestry(&Ancestry::default());
    none.map_err(|error| not_noted(&error))
}

fn not_noted(error: &StateError) -> ApiError {
    ApiError::new(&codes::INTERNAL, with_causes(error))
}

/// What earlier processes of this run have left, or an earlier life of the machine.
pub(super) fn past(config: &RunConfig) -> Past {
    let ancestry = config.settled.ancestry();
    Past {
        durable: config.settled.read(config.start.replica, config.start.lineage.epoch()),
        ancestry: (config.resumed && ancestry.restored).then_some(ancestry.incarnations),
    }
}

/// What is not captured: swap.
pub(super) fn excluded(config: &RunConfig) -> Vec<(DiskIndex, ByteRange)> {
    let swap = crate::swap::ranges();
    let disks = config.start.disks.iter();
    disks
        .filter_map(|disk| Some((disk.index, Disk::inspect(Path::new(&disk.path)).ok()?.name)))
        .flat_map(|(index, name)| {
            let of_it = swap.iter().filter(move |range| range.disk == name);
            of_it.map(move |range| (index, range.range))
        })
        .collect()
}

/// Removes what is pinned: nothing is captured or marked any more.
pub(super) async fn detach(config: &RunConfig) -> Result<(), ApiError> {
    match &config.capture.pin {
        Some(pin) => detach_pin(pin.clone()).await,
        None => Ok(()),
    }
}

/// The same, for a run that is gone.
pub(crate) async fn detach_pin(pin: PathBuf) -> Result<(), ApiError> {
    let begun = Instant::now();
    loop {
        let pin = pin.clone();
        let detached = tokio::task::spawn_blocking(move || landfall_capture::detach(&pin));
        match detached.await.map_err(|e| ApiError::new(&codes::INTERNAL, e.to_string()))? {
            Ok(true) => tracing::info!("the capture of an earlier run was removed"),
            Ok(false) => {}
            // A part of a catch-up that was given up still waits for a slow disk.
            Err(CaptureError::InUse(_)) if begun.elapsed() < IN_USE_MAX => {
                tokio::time::sleep(IN_USE_PAUSE).await;
                continue;
            }
            Err(error) => return Err(refused(&error)),
        }
        return Ok(());
    }
}

/// An error of the capture as the API shows it.
pub(crate) fn refused(error: &CaptureError) -> ApiError {
    let code = match error {
        CaptureError::Disk { .. } | CaptureError::Inspect { .. } | CaptureError::Targets(_) => {
            &codes::DISK_UNUSABLE
        }
        _ => &codes::CAPTURE_UNAVAILABLE,
    };
    ApiError::new(code, with_causes(error))
}

/// Why a catch-up can't go on, as the API shows it.
pub(super) fn shown(error: &CatchUpError) -> ApiError {
    ApiError::new(&codes::NODE_FAILED, format!("catch-up: {}", with_causes(error)))
        .cure("mend what the cause names; the agent tries again by itself")
}

/// An error with everything that led to it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
