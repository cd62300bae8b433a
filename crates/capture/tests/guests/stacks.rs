//! Promise: the device on top of a stack is captured byte for byte, and a write that passes beside
//! the hook of a member is noticed (trap T-7).

use landfall_guest::{Disk, Guest, Kernel, Spec};
use landfall_testkit::{GUEST_KERNELS, require};

use crate::loads::{MIB, PLAIN, boot, files, spec};
use crate::verdict::{Verdict, capture};

/// A stack over the disks `a` and `b`: how it is made (`$A`, `$B`), what is on top, how it is taken
/// apart.
struct Stack {
    name: &'static str,
    make: &'static str,
    top: &'static str,
    unmake: &'static str,
}

const LVM: Stack = Stack {
    name: "LVM linear",
    make: "pvcreate -q $A $B && vgcreate -q vg $A $B && lvcreate -q -y -Zn -l 100%FREE -n lv vg",
    top: "/dev/mapper/vg-lv",
    unmake: "vgchange -an vg && vgremove -q -y vg && pvremove -q $A $B",
};

const RAID1: Stack = Stack {
    name: "md raid1",
    // Until the members are equal, a read gives what the one or the other holds.
    make: "mdadm --create /dev/md7 --run --level=1 --raid-devices=2 $A $B && \
           until grep -q idle /sys/block/md7/md/sync_action; do usleep 100000; done",
    top: "/dev/md7",
    unmake: "mdadm --stop /dev/md7 && mdadm --zero-superblock $A $B",
};

const RAID0: Stack = Stack {
    name: "md raid0",
    make: "mdadm --create /dev/md7 --run --level=0 --raid-devices=2 $A $B",
    top: "/dev/md7",
    unmake: "mdadm --stop /dev/md7 && mdadm --zero-superblock $A $B",
};

/// Gone since Linux 6.8.
const LINEAR: Stack = Stack {
    name: "md linear",
    make: "mdadm --create /dev/md7 --run --level=linear --raid-devices=2 $A $B",
    top: "/dev/md7",
    unmake: "mdadm --stop /dev/md7 && mdadm --zero-superblock $A $B",
};

const CRYPT: Stack = Stack {
    name: "dm-crypt",
    make: "head -c 64 /dev/urandom >/run/key && \
           cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 \
               --key-file /run/key $A crypt",
    top: "/dev/mapper/crypt",
    unmake: "cryptsetup close crypt",
};

fn stacks_spec(kernel: &str) -> Spec {
    let kernel = Kernel::find(kernel).expect("was required");
    spec(kernel)
        .disk(Disk::blank("a", 64 * MIB))
        .disk(Disk::blank("b", 64 * MIB))
        .modules(["dm_mod", "dm_crypt", "md_mod", "raid0", "raid1", "xts", "ecb", "aes_generic"])
        .programs(["pvcreate", "vgcreate", "lvcreate", "vgchange", "vgremove", "pvremove"])
        .programs(["mdadm", "cryptsetup", "dmsetup", "mkfs.ext4"])
}

impl Stack {
    fn run(&self, guest: &mut Guest, script: &str) {
        let script = format!("export A=$(disk a) B=$(disk b)\n{script}");
        guest.run(&script).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// The top device is captured while it is written.
    fn assert_top_is_equal(&self, guest: &mut Guest) {
        eprintln!("{}", self.name);
        self.run(guest, self.make);
        capture(guest, self.top, PLAIN).assert_equal(20 * MIB);
        self.run(guest, self.unmake);
    }

    /// A member is captured; the array comes up above it afterwards and is written. Where its
    /// writes pass beside the hook, that is noticed; where they do not, all are captured.
    fn assert_member_is_safe(&self, guest: &mut Guest) {
        let load = format!(
            "A=$DEVICE B=$(disk b)\n{}\ndd if=/dev/urandom of={top} bs=64k count=64 oflag=direct \
             2>/dev/null\nsync {top}\n{}",
            self.make,
            self.unmake,
            top = self.top
        );
        let member = guest.run("disk a").unwrap();
        let verdict = capture(guest, &member, &load);
        assert!(
            matches!(verdict, Verdict::Marked(_) | Verdict::Equal { .. }),
            "{}: {verdict}",
            self.name
        );
    }
}

#[test]
fn what_is_on_top_of_a_stack_is_captured() {
    if !require(&["qemu", "guest-kernels", "e2fsprogs"]) {
        return;
    }
    let mut guest = boot(stacks_spec(GUEST_KERNELS[0]));
    for stack in [LVM, RAID1, RAID0, CRYPT] {
        stack.assert_top_is_equal(&mut guest);
    }
    LVM.run(&mut guest, LVM.make);
    let ext4 = files("mkfs.ext4 -q -F", "-t ext4");
    capture(&mut guest, LVM.top, &ext4).assert_equal(6 * MIB);
    LVM.run(&mut guest, LVM.unmake);
    for stack in [LVM, RAID1, RAID0] {
        stack.assert_member_is_safe(&mut guest);
    }
}

/// Linux 6.1 is the kernel on which writes were seen to pass beside the hook.
#[test]
fn writes_beside_the_hook_of_a_member_are_noticed() {
    if !require(&["qemu", "guest-kernels"]) {
        return;
    }
    let mut guest = boot(stacks_spec(GUEST_KERNELS[1]).module("linear"));
    LINEAR.assert_top_is_equal(&mut guest);
    for stack in [LVM, RAID1] {
        stack.assert_member_is_safe(&mut guest);
    }
    for stack in [LINEAR, RAID0] {
        let member = guest.run("disk a").unwrap();
        // Without statistics a raid0 hands bios on as they are.
        let load = format!(
            "A=$DEVICE B=$(disk b)\n{}\necho 0 >/sys/block/md7/queue/iostats\n\
             dd if=/dev/urandom of=/dev/md7 bs=64k count=64 oflag=direct 2>/dev/null\n{}",
            stack.make, stack.unmake
        );
        capture(&mut guest, &member, &load).assert_noticed();
        // Once the array is there, its member is refused.
        stack.run(&mut guest, stack.make);
        let verdict = capture(&mut guest, &member, "true");
        assert!(matches!(verdict, Verdict::Refused(_)), "{}: {verdict}", stack.name);
        stack.run(&mut guest, stack.unmake);
    }
}
