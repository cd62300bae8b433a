//! How a person uses the disks that a master target serves.

use landfall_api_types::resource::{Branch, ExportAddress};
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
    text.push_str(&how_to_start_a_machine(branch));
    text
}

/// Options of QEMU, and a first look with libnbd, for whoever starts the machine.
fn how_to_start_a_machine(branch: &Branch) -> String {
    let mut text = String::from("\nOr as disks of a machine in QEMU (on the master target):");
    for export in &branch.exports {
        let server = format!("server.type=unix,server.path={}", quoted(&export.socket));
        text.push_str(&qemu(export, &server, ""));
    }
    let remote: Vec<_> = branch
        .exports
        .iter()
        .filter_map(|export| Some((export, export.tls_uri.as_ref()?)))
        .collect();
    if remote.is_empty() {
        return text;
    }
    text.push_str(
        "\nFrom another host, with certificates in DIR that `landfall disk-client DIR` makes:\n  \
         -object tls-creds-x509,id=landfall,endpoint=client,dir=DIR",
    );
    for (export, uri) in remote {
        let address = uri.strip_prefix("nbds://").and_then(|rest| rest.split_once('/'));
        let Some((host, port)) = address.and_then(|(address, _)| address.rsplit_once(':')) else {
            continue;
        };
        let host = host.trim_matches(['[', ']']);
        let server = format!("server.type=inet,server.host={host},server.port={port}");
        text.push_str(&qemu(export, &server, ",tls-creds=landfall"));
        let _ = write!(text, "\n  nbdinfo '{uri}?tls-certificates=DIR'");
    }
    text
}

fn qemu(export: &ExportAddress, server: &str, tls: &str) -> String {
    let node = format!("disk{}", export.disk);
    let name = quoted(&export.export);
    format!(
        "\n  -blockdev driver=nbd,node-name={node},discard=unmap,{server},export={name}{tls} \\\n  \
         -device virtio-blk-pci,drive={node}"
    )
}

/// A comma ends a value in QEMU's options; two of them stand for one.
fn quoted(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::how_to_mount;
    use crate::sample;

    #[test]
    fn a_machine_can_be_started_from_here_and_from_elsewhere() {
        let text = how_to_mount(&sample::branch());
        for part in [
            "server.type=unix,server.path=/run/nbd.sock,export=web-1/0@test-1 \\",
            "server.host=mt.example,server.port=10809,export=web-1/0@test-1,tls-creds=landfall",
            "nbdinfo 'nbds://mt.example:10809/web-1/0@test-1?tls-certificates=DIR'",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        let mut local = sample::branch();
        local.exports[0].tls_uri = None;
        assert!(!how_to_mount(&local).contains("tls-creds"));
    }
}
