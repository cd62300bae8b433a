//! Machines for tests: a Debian kernel under QEMU, with an initramfs made here, that runs what a
//! test tells it.
//!
//! A test that needs another kernel, device-mapper, a reboot or a power cut can't use the machine
//! it runs on. A [`Guest`] is one that it may break:
//!
//! ```no_run
//! use landfall_guest::{Disk, Guest, Kernel, Spec};
//!
//! let kernel = Kernel::find("6.12-cloud").expect("`cargo xtask guest-kernels` has fetched it");
//! let spec = Spec::new(kernel).program("mkfs.ext4").disk(Disk::blank("data", 64 << 20));
//! let mut guest = Guest::boot(spec)?;
//! guest.run("mkfs.ext4 -q $(disk data) && mount $(disk data) /mnt && echo hello > /mnt/file")?;
//! guest.cut_power();
//! guest.start()?;
//! # Ok::<(), landfall_guest::GuestError>(())
//! ```
//!
//! # How it works
//! ```text
//!   test ── Guest ── Unix socket ── virtio-serial ── /init (PID 1, busybox) ── script
//!             └───── QMP: hot-plug, reset
//! ```
//! The initramfs holds busybox, the programs that the test names with their libraries, as they are
//! on this machine, and the kernel modules that it names with what they need. No root is needed:
//! the archive is written file by file. Where KVM
//! can't be used QEMU emulates the processor, which [`Guest::boot`] says; a guest then boots in two
//! to four seconds.
//!
//! # Invariants
//! * No call waits without a limit ([`Spec::patience`]), and none sleeps: each waits for the
//!   guest's answer or for the end of QEMU, whichever comes first.
//! * A guest that restarts by itself (a panic of its kernel) fails the call that waits for it.
//! * QEMU ends with its [`Guest`], and with the test's process, however that ends.
//! * Of a failed test the console log and the disks are kept, and the place is said.
//!
//! # Where to start
//! [`Guest`] and [`Spec`]; `init` is what runs in the guest.
//!
//! # Deliberately absent
//! Machines that are not x86-64, boot loaders, graphics. A recovered machine that has to boot by
//! its own boot loader is a matter of the fabrics, not of this crate.

mod console;
mod control;
mod cpio;
mod device;
mod error;
mod guest;
mod initramfs;
mod inside;
mod kernel;
mod libraries;
mod modules;
mod nbd;
mod process;
mod qemu;
mod qmp;
mod spec;

pub use control::Output;
pub use device::{Bus, Disk};
pub use error::GuestError;
pub use guest::Guest;
pub use kernel::Kernel;
pub use spec::Spec;
