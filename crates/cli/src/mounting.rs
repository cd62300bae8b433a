//! How a person uses the disks that a master target serves.

use landfall_api_types::resource::Branch;
use std::fmt::Write as _;

/// Commands, per disk: nbdfuse (package libnbd-bin) shows the export as a file, a loop device makes
/// it a disk.
///
/// e2fsck replays the journal without `-f`: with it, it would go on to repair, and the check after
/// it could not fail.
pub(crate) fn how_to_mount(branch: &Branch) -> String {
    let mut text = format!("branch {} at LSN {}", branch.name, branch.fork);
    if branch.exports.is_empty() {
        return text + " (not served)";
    }
    text.push_str(". To mount its disks (ext4, on the master target, as root):");
    for export in &branch.exports {
        let dir = format!("/mnt/{}-{}", branch.name, export.disk);
        let _ = write!(
            text,
            "\n  mkdir -p {dir}-nbd {dir}\n  nbdfuse {dir}-nbd '{}' &\n  \
             until [ -e {dir}-nbd/nbd ]; do sleep 0.1; done\n  \
             disk=$(losetup --find --show {dir}-nbd/nbd)\n  \
             e2fsck -E journal_only -y \"$disk\"; e2fsck -fn \"$disk\" && mount \"$disk\" {dir}",
            export.uri
        );
    }
    text.push_str(
        "\nBefore the branch goes: umount, losetup --detach, and umount the directory of nbdfuse.",
    );
    text
}
