//! Linux's own NBD driver, in a guest: ext4 on our server, checked from both sides.

use landfall_guest::{Guest, Kernel, Spec};
use landfall_nbd::testing::{ExportMap, FileExport};
use landfall_nbd::{Access, Endpoint, Security, Server, ServerOptions};
use landfall_testkit::require;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "machine-1/0@epoch-2";
const SIZE: u64 = 192 << 20;
const NEEDED: &[&str] = &["qemu", "guest-kernels", "nbd-client", "e2fsprogs", "fio"];

/// A server of one image on a loopback port, with threads of its own.
struct Site {
    directory: tempfile::TempDir,
    endpoint: Option<Endpoint>,
    server: Server,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = directory.path().join("image");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(SIZE).expect("its size");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let export = FileExport::open(&image, Access::ReadWrite).expect("opened");
        let server = Server::new(ExportMap::of(NAME, Arc::new(export)), ServerOptions::default());
        let mut site = Self { directory, endpoint: None, server, runtime };
        let _context = site.runtime.enter();
        let endpoint = site.server.listen_tcp(([127, 0, 0, 1], 0).into(), Security::Loopback);
        site.endpoint = Some(endpoint.expect("a free port"));
        drop(_context);
        site
    }

    fn port(&self) -> u16 {
        self.endpoint.as_ref().map_or(0, |endpoint| endpoint.address().port())
    }

    fn image(&self) -> std::path::PathBuf {
        self.directory.path().join("image")
    }

    /// Ends all sessions: what was answered by now is in the image.
    fn disconnect(&self) {
        self.runtime.block_on(self.server.disconnect(NAME));
    }
}

fn e2fsck(image: &Path, options: &[&str]) -> bool {
    let status = Command::new("e2fsck").args(options).arg(image).output().expect("it starts");
    status.status.success()
}

/// Everything that ext4 and fio do through the kernel's driver comes back, is clean on the host,
/// and what was synced survives a guest whose power is cut.
#[test]
fn ext4_on_the_kernels_driver_keeps_its_files() {
    if !require(NEEDED) {
        return;
    }
    let site = Site::new();
    let kernel = Kernel::find("6.12-cloud").or_else(|| Kernel::all().into_iter().next());
    let spec = Spec::new(kernel.expect("was required"))
        .nbd()
        .module("ext4")
        .programs(["mkfs.ext4", "e2fsck", "fio"])
        .patience(Duration::from_secs(120));
    let mut guest = Guest::boot(spec).expect("it boots");
    let attach = |guest: &mut Guest| {
        guest.attach_nbd("/dev/nbd0", site.port(), NAME, "").expect("connected");
    };
    attach(&mut guest);
    let facts = guest.run("cat /sys/block/nbd0/size /sys/block/nbd0/queue/logical_block_size");
    assert_eq!(facts.expect("read"), format!("{}\n512", SIZE / 512));
    guest.run("mkfs.ext4 -q /dev/nbd0 && mount -o discard /dev/nbd0 /mnt").expect("ext4");
    let fio = "cd /mnt && fio --name=verify --filename=file --size=24m --rw=randwrite \
               --bsrange=512-64k --ioengine=psync --verify=crc32c --verify_fatal=1 --fsync=64 \
               --randseed=7 --verify_state_save=0 --thread --output-format=terse";
    guest.run(fio).expect("what was written is read");
    let sum = guest.run(
        "dd if=/dev/urandom of=/mnt/random bs=64k count=64 2>&1 && sync && sha256sum /mnt/random",
    );
    let sum = sum.expect("written").lines().last().unwrap_or_default().to_owned();
    guest.run("rm /mnt/file && umount /mnt").expect("unmounted");
    guest.detach_nbd("/dev/nbd0").expect("disconnected");
    site.disconnect();
    assert!(e2fsck(&site.image(), &["-fn"]), "the image is not clean");

    attach(&mut guest);
    guest.run("mount /dev/nbd0 /mnt").expect("mounted again");
    assert_eq!(guest.run("sha256sum /mnt/random").expect("read"), sum);
    guest.run("echo synced > /mnt/synced && sync && echo lost > /mnt/lost").expect("written");
    guest.cut_power();
    site.disconnect();
    assert!(e2fsck(&site.image(), &["-E", "journal_only", "-y"]), "the journal is not replayed");
    assert!(e2fsck(&site.image(), &["-fn"]), "the image is not clean after a power cut");
    guest.start().expect("it boots");
    attach(&mut guest);
    guest.run("mount /dev/nbd0 /mnt").expect("mounted after a power cut");
    assert_eq!(
        guest.run("cat /mnt/synced; sha256sum /mnt/random").expect("read"),
        format!("synced\n{sum}")
    );
    guest.run("umount /mnt").expect("unmounted");
}
