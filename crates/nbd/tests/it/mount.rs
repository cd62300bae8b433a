//! What a test failover does: a branch is mounted for real, by way of nbdfuse and a loop device,
//! and used.

use crate::support::Site;
use bytes::Bytes;
use landfall_nbd::testing::MemoryExport;
use landfall_testkit::require;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const SIZE: usize = 64 << 20;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

/// nbdfuse, a loop device and a mount; undone in reverse, also when the test fails half-way.
struct Mounted {
    fuse: PathBuf,
    target: PathBuf,
    device: Option<String>,
    mounted: bool,
    nbdfuse: Child,
}

impl Mounted {
    fn new(site: &Site, export: &str, name: &str) -> Self {
        let fuse = site.directory.path().join(format!("{name}.fuse"));
        let target = site.directory.path().join(format!("{name}.mount"));
        std::fs::create_dir(&fuse).expect("made");
        std::fs::create_dir(&target).expect("made");
        let ready = site.directory.path().join(format!("{name}.pid"));
        let nbdfuse = Command::new("nbdfuse")
            .args(["-P", text(&ready), text(&fuse), &site.uri(export)])
            .stdin(Stdio::null())
            .spawn()
            .expect("nbdfuse starts");
        let mut mounted = Self { fuse, target, device: None, mounted: false, nbdfuse };
        while !ready.exists() {
            let ended = mounted.nbdfuse.try_wait().expect("our child");
            assert!(ended.is_none(), "nbdfuse ended: {ended:?}");
            std::thread::yield_now();
        }
        mounted
    }

    fn file(&self) -> PathBuf {
        self.fuse.join("nbd")
    }

    fn attach_and_mount(&mut self) {
        let device = run("losetup", &["--find", "--show", text(&self.file())]);
        self.device = Some(device.clone());
        run("mount", &[&device, text(&self.target)]);
        self.mounted = true;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let undo = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("{program} {arguments:?} failed");
            }
        };
        if self.mounted {
            undo("umount", &[text(&self.target)]);
        }
        if let Some(device) = &self.device {
            undo("losetup", &["--detach", device]);
            // Detaching is lazy where a udev probe still holds the device; the file must be free
            // before FUSE can go.
            while Path::new("/sys/block")
                .join(device.trim_start_matches("/dev/"))
                .join("loop/backing_file")
                .exists()
            {
                std::thread::yield_now();
            }
        }
        undo("umount", &[text(&self.fuse)]);
        // nbdfuse ends when its mount point is gone.
        let _ = self.nbdfuse.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_lives_on_a_branch() {
    if !require(&["root", "loop", "fuse", "e2fsprogs"]) {
        return;
    }
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let name = "machine-1/0@branch of a test";
    let site = Site::new(name, export.clone());
    let (site, export) = tokio::task::spawn_blocking(move || {
        let mut mounted = Mounted::new(&site, name, "branch");
        run("mkfs.ext4", &["-q", "-F", text(&mounted.file())]);
        mounted.attach_and_mount();
        for number in 0..40_u8 {
            let path = mounted.target.join(format!("file-{number}"));
            std::fs::write(path, vec![number; 50_000 + usize::from(number)]).expect("written");
        }
        std::fs::remove_file(mounted.target.join("file-7")).expect("removed");
        run("sync", &["-f", text(&mounted.target)]);
        drop(mounted);
        (site, export)
    })
    .await
    .expect("the first mount");
    assert_eq!(export.in_flight(), 0);

    // What the server holds is a clean file system, to be read through a second way in.
    let image = site.directory.path().join("image");
    std::fs::write(&image, export.content()).expect("room");
    run("e2fsck", &["-f", "-n", text(&image)]);

    tokio::task::spawn_blocking(move || {
        let mut mounted = Mounted::new(&site, name, "again");
        mounted.attach_and_mount();
        for number in (0..40_u8).filter(|number| *number != 7) {
            let path = mounted.target.join(format!("file-{number}"));
            let found = std::fs::read(path).expect("still there");
            assert!(found == vec![number; 50_000 + usize::from(number)], "file {number}");
        }
        assert!(!mounted.target.join("file-7").exists());
    })
    .await
    .expect("the second mount");
    // The export outlives its clients.
    export.store(0, &Bytes::from_static(&[0; 512]));
}
