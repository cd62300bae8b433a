//! Promise: on each kernel the programs load, pass the self-test, and what is replayed is what the
//! disk holds.

use landfall_guest::{Disk, Kernel};
use landfall_testkit::{GUEST_KERNELS, require};

use crate::loads::{FILE_SYSTEMS, FIO, MIB, PLAIN, boot, files, spec, with_file_systems};
use crate::verdict::capture;

fn equality_on(kernel: &str, raw: &str, file_systems: &[(&str, &str, &str)]) {
    if !require(&["qemu", "guest-kernels", "fio", "e2fsprogs"]) {
        return;
    }
    let kernel = Kernel::find(kernel).expect("was required");
    let spec = with_file_systems(spec(kernel)).program("fio");
    let mut guest = boot(spec.disk(Disk::blank("data", 320 * MIB)));
    let device = guest.run("disk data").unwrap();
    capture(&mut guest, &device, raw).assert_equal(20 * MIB);
    for (_, make, mount) in file_systems {
        capture(&mut guest, &device, &files(make, mount)).assert_equal(6 * MIB);
    }
    guest.power_off().unwrap();
}

#[test]
fn the_newest_kernel_of_ci_captures_every_byte() {
    equality_on(GUEST_KERNELS[0], FIO, &FILE_SYSTEMS);
}

#[test]
fn the_older_kernel_of_ci_captures_every_byte() {
    equality_on(GUEST_KERNELS[1], PLAIN, &FILE_SYSTEMS[..1]);
}
