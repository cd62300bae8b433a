//! What writes to the captured disk. Each is a script for the guest's shell.

use landfall_guest::{Guest, Kernel, Spec};

pub(crate) const MIB: u64 = 1 << 20;
/// A limit for the slowest step on an emulated processor of a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// A guest with what the loads need.
pub(crate) fn spec(kernel: Kernel) -> Spec {
    Spec::new(kernel).memory_mib(1024).patience(PATIENCE).this_test().modules(["loop"]).programs([
        "blkdiscard",
        "fstrim",
        "fallocate",
    ])
}

/// A guest that also makes these file systems.
pub(crate) fn with_file_systems(spec: Spec) -> Spec {
    spec.modules(["ext4", "xfs", "btrfs"]).programs(["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"])
}

/// Sizes, alignments and ways to write, without a file system; needs fio and 40 MiB.
pub(crate) const FIO: &str = "
go() { name=$1; shift; fio --name=$name --filename=$DEVICE --size=32m --randrepeat=0 --minimal \\
    --thread \"$@\" >/run/fio.$name || { cat /run/fio.$name; exit 1; }; }
sector=$(cat /sys/class/block/$(basename $(readlink -f $DEVICE))/queue/logical_block_size)
go direct --direct=1 --rw=randwrite --bsrange=$sector-256k --blockalign=$sector --io_size=12m
go cached --rw=randwrite --bsrange=1k-64k --bs_unaligned=1 --fsync=64 --io_size=8m
go mapped --ioengine=mmap --rw=randwrite --bs=4k --io_size=4m --fsync=100
go queued --direct=1 --ioengine=libaio --iodepth=16 --rw=write --bs=1m --io_size=16m
blockdev --flushbufs $DEVICE
";

/// The same without any program but busybox and util-linux.
pub(crate) const PLAIN: &str = "
dd if=/dev/urandom of=/tmp/random bs=1M count=4 2>/dev/null
dd if=/tmp/random of=$DEVICE bs=1M seek=1 oflag=direct 2>/dev/null
dd if=/tmp/random of=$DEVICE bs=4096 seek=2051 count=700 oflag=direct 2>/dev/null
dd if=/tmp/random of=$DEVICE bs=3001 seek=977 count=900 conv=notrunc,fsync 2>/dev/null
cat /tmp/random /tmp/random /tmp/random >$DEVICE
blkdiscard -z -o 4194304 -l 1048576 $DEVICE
sync
rm /tmp/random
";

/// What people do with files, on the file system that `make` makes.
pub(crate) fn files(make: &str, mount: &str) -> String {
    format!(
        "{make} $DEVICE >/dev/null
mount {mount} $DEVICE /mnt
dd if=/dev/urandom of=/tmp/random bs=1M count=1 2>/dev/null
n=0
while [ $n -lt 60 ]; do
    head -c $((n * 4001)) /tmp/random >/mnt/file-$n
    [ $((n % 10)) = 0 ] && sync
    n=$((n + 1))
done
mkdir /mnt/folder
for n in 0 7 14 21; do mv /mnt/file-$n /mnt/folder; done
for n in 3 13 23 33 43; do rm /mnt/file-$n; done
cat /mnt/file-5* >/mnt/joined
for n in 1 2 4; do head -c 70000 /tmp/random >>/mnt/file-$n; truncate -s 3333 /mnt/file-4$n; done
fallocate -l 8M /mnt/big
cp /tmp/random /mnt/copy
dd if=/tmp/random of=/mnt/big bs=64k seek=9 conv=notrunc oflag=direct 2>/dev/null
fallocate -p -o 1M -l 1M /mnt/big
sync
fstrim /mnt
umount /mnt
rm /tmp/random"
    )
}

/// The three file systems: a name, how it is made, how it is mounted.
pub(crate) const FILE_SYSTEMS: [(&str, &str, &str); 3] = [
    ("ext4", "mkfs.ext4 -q -F", "-t ext4"),
    ("XFS", "mkfs.xfs -q -f", "-t xfs"),
    ("btrfs", "mkfs.btrfs -q -f", "-t btrfs"),
];

/// Boots, and says how long it took.
pub(crate) fn boot(spec: Spec) -> Guest {
    let begun = std::time::Instant::now();
    let guest = Guest::boot(spec).unwrap();
    eprintln!("booted in {:.1} s", begun.elapsed().as_secs_f64());
    guest
}
