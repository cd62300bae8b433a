//! Clients that were not written here. What they read and write is compared with the disk behind
//! the server.

use crate::support::Site;
use landfall_nbd::Export;
use landfall_nbd::testing::MemoryExport;
use landfall_testkit::{Rng, require, seed};
use std::path::Path;
use std::sync::Arc;
use tokio::process::Command;

const SIZE: usize = 8 << 20;
/// As views are named; '/' and '@' need no encoding in a URI.
const VIEW: &str = "machine-1/0@latest";
/// Everything that a URI must encode.
const AWKWARD: &str = "disk & co/ü %41?x#y@z";

/// Data, holes, and data that are zeroes.
pub(crate) fn disk(test: &str) -> Arc<MemoryExport> {
    let mut rng = Rng::new(seed(test));
    let export = MemoryExport::new(SIZE, 512);
    let mut piece = vec![0; 256 << 10];
    for at in (0..SIZE).step_by(1 << 20) {
        rng.fill(&mut piece);
        export.store(at as u64, &piece);
    }
    export.store(700 << 10, &[0; 4096]);
    Arc::new(export)
}

pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}\n{stdout}");
    stdout
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_understands_what_is_served() {
    if !require(&["libnbd"]) {
        return;
    }
    let site = Site::new(VIEW, disk("nbdinfo_understands_what_is_served"));
    site.exports.insert(AWKWARD, Arc::new(MemoryExport::view(&[1; 4096], 4096)));

    let facts = run("nbdinfo", &["--json", &site.uri(VIEW)]).await;
    for fact in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        &format!("\"export-size\": {SIZE}"),
        "\"is_read_only\": false",
        "\"can_cache\": true",
        "\"can_df\": true",
        "\"can_fast_zero\": true",
        "\"can_flush\": true",
        "\"can_fua\": true",
        "\"can_multi_conn\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"base:allocation\"",
        "\"block_size_minimum\": 512",
        "\"block_size_maximum\": 33554432",
    ] {
        assert!(facts.contains(fact), "{fact} is missing: {facts}");
    }
    let facts = run("nbdinfo", &["--json", &site.uri(AWKWARD)]).await;
    for fact in ["\"is_read_only\": true", "\"can_multi_conn\": false", "_minimum\": 4096"] {
        assert!(facts.contains(fact), "{fact} is missing: {facts}");
    }

    let list = run("nbdinfo", &["--list", &site.uri("")]).await;
    assert!(list.contains(VIEW) && list.contains(AWKWARD), "{list}");

    let map = run("nbdinfo", &["--map", &site.uri(VIEW)]).await;
    let first: Vec<_> = map.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(first[..3], ["0", "262144", "0"], "{map}");
    assert_eq!(map.lines().filter(|line| line.contains("hole,zero")).count(), 9, "{map}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_copies_both_ways() {
    if !require(&["libnbd"]) {
        return;
    }
    let export = disk("nbdcopy_copies_both_ways");
    let site = Site::new(VIEW, export.clone());
    let blank = Arc::new(MemoryExport::new(SIZE, 512));
    site.exports.insert(AWKWARD, blank.clone());
    let image = site.directory.path().join("image");

    run("nbdcopy", &[&site.uri(VIEW), text(&image)]).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());
    run("nbdcopy", &["--flush", text(&image), &site.uri(AWKWARD)]).await;
    assert!(blank.content() == export.content());
    assert!(blank.counts().flushes > 0);
    // From server to server, with synchronous requests too.
    let third = Arc::new(MemoryExport::new(SIZE, 512));
    site.exports.insert("third", third.clone());
    run("nbdcopy", &["--synchronous", &site.uri(AWKWARD), &site.uri("third")]).await;
    assert!(third.content() == export.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdkit_passes_it_on() {
    if !require(&["libnbd", "nbdkit"]) {
        return;
    }
    let export = disk("nbdkit_passes_it_on");
    let site = Site::new(VIEW, export.clone());
    let image = site.directory.path().join("image");
    let source = format!("uri={}", site.uri(VIEW));
    let copy = format!("nbdcopy \"$uri\" '{}'", text(&image));
    run("nbdkit", &["-U", "-", "nbd", &source, "--run", &copy]).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());

    let blank = Arc::new(MemoryExport::new(SIZE, 512));
    site.exports.insert(AWKWARD, blank.clone());
    let target = format!("uri={}", site.uri(AWKWARD));
    let copy = format!("nbdcopy '{}' \"$uri\"", text(&image));
    // Split into small requests, many at a time.
    let filter = ["--filter=blocksize", "maxdata=64k"];
    run("nbdkit", &["-U", "-", filter[0], "nbd", &target, filter[1], "--run", &copy]).await;
    assert!(blank.content() == export.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_img_converts_compares_and_maps() {
    if !require(&["qemu-img"]) {
        return;
    }
    let export = disk("qemu_img_converts_compares_and_maps");
    let site = Site::new(VIEW, export.clone());
    let blank = Arc::new(MemoryExport::new(SIZE, 512));
    site.exports.insert(AWKWARD, blank.clone());
    let image = site.directory.path().join("image.qcow2");

    let (source, target) = (site.uri(VIEW), site.uri(AWKWARD));
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &source, text(&image)]).await;
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &source, text(&image)]).await;
    let into = ["convert", "-n", "-W", "-f", "qcow2", "-O", "raw", text(&image), &target];
    run("qemu-img", &into).await;
    assert!(blank.content() == export.content());
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &source]).await;
    assert!(map.contains("\"start\": 0, \"length\": 262144"), "{map}");
    assert!(map.contains("\"zero\": true"), "{map}");
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_writes_zeroes_discards_and_reads() {
    if !require(&["qemu-img"]) {
        return;
    }
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new(VIEW, export.clone());
    let commands = [
        "write -P 0xab 0 1M",
        "write -f -P 0xcd 64k 64k",
        "read -P 0xab 0 64k",
        "read -P 0xcd 64k 64k",
        "write -z 128k 64k",
        "write -z -u 192k 64k",
        "write -z -n 256k 64k",
        "read -P 0 128k 192k",
        "discard 512k 64k",
        "aio_write -P 0x11 2M 512k",
        "aio_write -P 0x22 3M 512k",
        "aio_flush",
        "flush",
        "read -P 0x11 2M 512k",
        "read -P 0x22 3M 512k",
    ];
    let mut arguments = vec!["-f", "raw", "-t", "none", "-d", "unmap"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    let uri = site.uri(VIEW);
    arguments.push(&uri);
    let output = run("qemu-io", &arguments).await;
    assert!(!output.contains("failed"), "{output}");
    let mut expected = vec![0; SIZE];
    expected[..1 << 20].fill(0xab);
    expected[64 << 10..128 << 10].fill(0xcd);
    expected[128 << 10..320 << 10].fill(0);
    expected[512 << 10..576 << 10].fill(0);
    expected[2 << 20..(2 << 20) + (512 << 10)].fill(0x11);
    expected[3 << 20..(3 << 20) + (512 << 10)].fill(0x22);
    assert!(export.content() == expected);
    assert!(export.counts().flushes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fio_verifies_what_it_wrote() {
    if !require(&["fio"]) {
        return;
    }
    if !run("fio", &["--enghelp"]).await.contains("nbd") {
        eprintln!("SKIPPED: fio: this build lacks the nbd engine");
        return;
    }
    let export = Arc::new(MemoryExport::new(SIZE, 512));
    let site = Site::new(VIEW, export.clone());
    let uri = format!("--uri={}", site.uri(VIEW));
    let size = format!("--size={SIZE}");
    // The engine comes first: it is what knows the option of the URI.
    let job = ["--name=verify", "--ioengine=nbd", &uri, "--rw=randwrite", "--bsrange=512-128k"];
    let verify = ["--verify=crc32c", "--verify_fatal=1", "--iodepth=32", "--fsync=64"];
    // Its state would be left in the directory that the tests are started from.
    let job = [&job[..], &["--verify_state_save=0"]].concat();
    let rest = ["--randseed=7", "--thread", "--output-format=terse"];
    let arguments = [&job[..], &verify, &[&size], &rest].concat();
    run("fio", &arguments).await;
    assert!(export.counts().writes > 100 && export.counts().reads > 100);
    assert!(export.size() == SIZE as u64 && export.in_flight() == 0);
}

/// Each call of libnbd, with each flag, and what is refused.
const SCRIPT: &str = r#"
import errno, sys
h.set_strict_mode(0)
size = h.get_size()
assert h.get_structured_replies_negotiated()
assert h.can_cache() and h.can_fua() and h.can_df() and h.can_fast_zero()
data = bytes(range(256)) * 16
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == data
h.cache(65536, 0)
h.zero(4096, 12288, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 16384, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
assert h.pread(8192, 12288) == bytearray(8192)
h.trim(4096, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == bytearray(4096)
h.flush()
pieces = []
def chunk(buf, offset, status, error):
    pieces.append((offset, len(buf), status))
h.pread_structured(65536, 0, chunk, nbd.CMD_FLAG_DF)
assert len(pieces) == 1, pieces
extents = []
def extent(context, offset, entries, error):
    extents.append((context, offset, entries))
h.block_status(1 << 20, 0, extent)
assert extents[0][0] == "base:allocation", extents
h.block_status(1 << 20, 0, extent, nbd.CMD_FLAG_REQ_ONE)
assert len(extents[1][2]) == 2, extents
cookies = [h.aio_pread(nbd.Buffer(4096), at * 4096) for at in range(64)]
for cookie in cookies:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
def refused(call, number):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error, number)
    else:
        sys.exit("not refused")
refused(lambda: h.pread(512, size), errno.EINVAL)
refused(lambda: h.pwrite(bytes(512), size), errno.ENOSPC)
refused(lambda: h.pread(100, 0), errno.EINVAL)
refused(lambda: h.pread(512, 100), errno.EINVAL)
refused(lambda: h.zero(512, size), errno.ENOSPC)
refused(lambda: h.pwrite(bytes(512), 0, 1 << 9), errno.EINVAL)
assert h.pread(512, 0) is not None
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nbdsh_calls_everything() {
    if !require(&["nbdsh"]) {
        return;
    }
    for export in [disk("nbdsh"), Arc::new(MemoryExport::new(SIZE, 512).here())] {
        let site = Site::new(VIEW, export);
        // The context is asked for before connecting; -u would connect first.
        let connect = format!(
            "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\nh.connect_uri({:?})",
            site.uri(VIEW)
        );
        // What the script nbdsh calls, by the Python that has the module.
        run("/usr/bin/python3", &["-m", "nbd", "-c", &connect, "-c", SCRIPT]).await;
    }
}
