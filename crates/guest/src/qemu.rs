//! QEMU's command line.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::Spec;
use crate::spec::Boots;

/// The program that all guests run in.
const PROGRAM: &str = "qemu-system-x86_64";

/// Names of the files of a guest.
pub(crate) const INITRAMFS: &str = "initramfs";
pub(crate) const CONSOLE: &str = "console.log";
pub(crate) const CONTROL: &str = "control";
pub(crate) const QMP: &str = "qmp";

/// True when the processor need not be emulated. A machine that is a guest itself may offer a
/// `/dev/kvm` that runs no stock kernel (the module `kvm_pvm` needs a kernel made for it): only the
/// two that use the processor's own virtualization count.
pub(crate) fn has_kvm() -> bool {
    let modules = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"];
    modules.iter().any(|module| Path::new(module).exists())
        && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The command that starts the guest whose files are in `directory`.
pub(crate) fn command(spec: &Spec, directory: &Path) -> Command {
    // The kernel ends QEMU with the thread that started it: also when a test is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", PROGRAM]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]);
    command.args(if has_kvm() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    });
    command.arg("-m").arg(spec.memory_mib.to_string());
    command.arg("-smp").arg(spec.processors.to_string());
    let (kernel, initramfs, start) = match &spec.boots {
        Boots::Ours(kernel) => (kernel.image(), directory.join(INITRAMFS), "rdinit=/init"),
        Boots::Installed { kernel, initramfs } => {
            (kernel.clone(), initramfs.clone(), "root=/dev/vda ro systemd.show_status=no")
        }
    };
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // A panic restarts the guest at once, and its "READY" tells the test.
    let options = format!("console=ttyS0 panic=-1 loglevel=4 net.ifnames=0 {start}");
    command.args(["-append", &options]);
    channels(&mut command, directory);
    // As a real machine's firmware has one; the same over restarts.
    command.args(["-uuid", "5a1f0f11-0000-4000-8000-000000000001"]);
    command.args(["-device", "virtio-rng-pci"]);
    command.args(["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0"]);
    command.args(["-device", "virtio-scsi-pci,id=scsi0"]);
    for disk in &spec.disks {
        command.arg("-blockdev").arg(disk.blockdev(directory).to_string());
        command.arg("-device").arg(device_option(disk));
    }
    command
}

/// The test listens and QEMU connects: nobody has to wait for a socket to appear.
fn channels(command: &mut Command, directory: &Path) {
    let socket = |id: &str| format!("socket,id={id},path={}", directory.join(id).display());
    command.arg("-serial").arg(format!("file:{}", directory.join(CONSOLE).display()));
    command.args(["-device", "virtio-serial-pci", "-chardev"]).arg(socket(CONTROL));
    command.args(["-device", "virtserialport,chardev=control,name=control"]);
    command.arg("-chardev").arg(socket(QMP)).args(["-mon", "chardev=qmp,mode=control"]);
}

/// As `key=value`, from the properties that a hot-plug uses too.
fn device_option(disk: &crate::Disk) -> String {
    let device = disk.device();
    let driver = device["driver"].as_str().unwrap_or_default();
    let mut option = driver.to_owned();
    for (key, value) in device.as_object().into_iter().flatten() {
        if key != "driver" {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            option += &format!(",{key}={value}");
        }
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, Disk};

    #[test]
    fn a_device_as_an_option() {
        let option = device_option(&Disk::blank("data", 1).bus(Bus::Scsi).sector_bytes(4096));
        let (driver, properties) = option.split_once(',').expect("has properties");
        assert_eq!(driver, "scsi-hd");
        let mut properties: Vec<_> = properties.split(',').collect();
        properties.sort_unstable();
        let expected = [
            "bus=scsi0.0",
            "drive=node-data",
            "id=disk-data",
            "logical_block_size=4096",
            "physical_block_size=4096",
            "serial=data",
        ];
        assert_eq!(properties, expected);
    }
}
