//! Promise: it does not matter what a disk is attached to, nor how large its sectors are.

use landfall_guest::{Bus, Disk, Kernel};
use landfall_testkit::{GUEST_KERNELS, require};

use crate::loads::{MIB, PLAIN, boot, spec};
use crate::verdict::capture;

#[test]
fn nvme_scsi_and_sectors_of_4_kib() {
    if !require(&["qemu", "guest-kernels"]) {
        return;
    }
    let kernel = Kernel::find(GUEST_KERNELS[0]).expect("was required");
    let disk = |name, bus, sector| Disk::blank(name, 24 * MIB).bus(bus).sector_bytes(sector);
    let spec = spec(kernel)
        .disk(disk("nvme", Bus::Nvme, 512))
        .disk(disk("scsi-4kn", Bus::Scsi, 4096))
        .disk(disk("virtio-4kn", Bus::Virtio, 4096));
    let mut guest = boot(spec);
    for name in ["nvme", "scsi-4kn", "virtio-4kn"] {
        let device = guest.run(&format!("disk {name}")).unwrap();
        capture(&mut guest, &device, PLAIN).assert_equal(20 * MIB);
    }
}
