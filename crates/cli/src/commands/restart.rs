//! What the system's shutdown and start call.

use crate::args::{RestartArgs, RestartCommand};
use crate::failure::Failure;
use crate::output;
use anyhow::Context as _;
use landfall_agent::Settings;
use landfall_agent::reboot::{self, Restored};
use landfall_agent::settled::SettledFile;

/// `landfall agent restart`.
pub(super) fn restart(command: &RestartCommand) -> Result<(), Failure> {
    let said = match command {
        RestartCommand::Save(args) => {
            let kept = reboot::save(&args.state, &settled(args));
            match kept.context("keep the bitmap over the restart")? {
                Some(kept) => {
                    let dirty = output::bytes(kept.dirty_bytes);
                    format!("kept for {} disks, {dirty} dirty", kept.disks)
                }
                None => "nothing to keep".to_owned(),
            }
        }
        RestartCommand::Watch(args) => {
            let disks = reboot::watch(&args.state).context("watch the disks")?;
            format!("{disks} disks are watched")
        }
        RestartCommand::Restore { root, place } => {
            let restored = reboot::restore(root, &place.state, &settled(place));
            match restored.context("use what was kept over the restart")? {
                Restored::NotWatched => "the disks were not watched: they are compared".to_owned(),
                Restored::Nothing => "nothing was kept: the disks are compared".to_owned(),
                Restored::Disks { counted, kept } => {
                    format!("what was kept counts for {counted} of {kept} disks")
                }
            }
        }
    };
    output::line(&format!("landfall: {said}"));
    Ok(())
}

fn settled(args: &RestartArgs) -> SettledFile {
    SettledFile(Some(Settings::settled_file(&args.instance_file)))
}
