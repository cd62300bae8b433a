//! What capture needs of the kernel, and where its memory begins.

use crate::CaptureError;
use std::fs;
use std::path::Path;

/// The first kernel that has all that the program uses (`bpf_loop`); older ones are refused.
const VERSION_MIN: (u32, u32) = (5, 17);

/// Addresses where the direct map and the array of pages begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bases {
    pub(crate) page_offset: u64,
    pub(crate) vmemmap: u64,
}

impl Bases {
    /// Where they begin on x86-64 without randomization. A kernel that doesn't tell (no
    /// `KALLSYMS_ALL`) may keep them there, or not: the self-test finds out.
    pub(crate) fn fallback() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let five_levels = flags
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|flag| flag == "la57"));
        if five_levels {
            Self { page_offset: 0xff11_0000_0000_0000, vmemmap: 0xffd4_0000_0000_0000 }
        } else {
            Self { page_offset: 0xffff_8880_0000_0000, vmemmap: 0xffff_ea00_0000_0000 }
        }
    }
}

/// Refuses kernels that can't capture, each with what is missing.
///
/// # Errors
/// [`CaptureError::Kernel`].
pub(crate) fn check() -> Result<(), CaptureError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let refuse = |missing: &str| {
        Err(CaptureError::Kernel { release: release.clone(), missing: missing.to_owned() })
    };
    if !cfg!(target_arch = "x86_64") {
        return refuse("only x86-64 is supported so far");
    }
    if version(&release).is_none_or(|found| found < VERSION_MIN) {
        return refuse("Linux 5.17 or newer is needed");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return refuse(
            "/sys/kernel/btf/vmlinux is missing: a kernel with CONFIG_DEBUG_INFO_BTF is needed",
        );
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return refuse(
            "lockdown is in confidentiality mode, which forbids programs to read written bytes",
        );
    }
    Ok(())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.4.0-150-generic"), Some((5, 4)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("x"), None);
        assert!(version("5.4.0").expect("parses") < VERSION_MIN);
        assert!(version("5.17.0").expect("parses") >= VERSION_MIN);
    }
}
