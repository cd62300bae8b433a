//! What capture needs of the kernel, and where its memory begins.

use crate::CaptureError;
use std::fs;
use std::path::Path;

/// The first kernel on which the program can mark: atomic instructions with a result, and
/// `bio.bi_bdev`. Distributions carry features back, so what else is needed is asked for by name.
pub(crate) const VERSION_MIN: Release = Release(5, 12);

/// Series of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Release(u32, u32);

impl Release {
    /// From `uname -r`.
    pub(crate) fn parse(release: &str) -> Option<Self> {
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

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

/// Refuses kernels on which writes can't even be marked, each with what is missing.
///
/// # Errors
/// [`CaptureError::Kernel`].
pub(crate) fn check_marking() -> Result<(), CaptureError> {
    if !cfg!(target_arch = "x86_64") {
        return refuse("only x86-64 is supported so far");
    }
    let release = release();
    if Release::parse(&release).is_none_or(|found| found < VERSION_MIN) {
        return refuse("Linux 5.12 or newer is needed");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return refuse(
            "/sys/kernel/btf/vmlinux is missing: a kernel with CONFIG_DEBUG_INFO_BTF is needed",
        );
    }
    Ok(())
}

/// Refuses kernels on which bytes can't be captured; whether they can be where this finds nothing
/// is what the self-test decides.
///
/// # Errors
/// [`CaptureError::Kernel`].
pub(crate) fn check_data() -> Result<(), CaptureError> {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return refuse(
            "lockdown is in confidentiality mode, which forbids programs to read written bytes",
        );
    }
    Ok(())
}

fn refuse(missing: &str) -> Result<(), CaptureError> {
    Err(CaptureError::Kernel { release: release(), missing: missing.to_owned() })
}

/// `uname -r`.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        let parsed = |text| Release::parse(text);
        assert_eq!(parsed("6.18.44-fc-v669"), Some(Release(6, 18)));
        assert_eq!(parsed("5.4.0-150-generic"), Some(Release(5, 4)));
        assert_eq!(parsed("6.1-rc3"), Some(Release(6, 1)));
        assert_eq!(parsed("x"), None);
        assert!(parsed("5.4.0").expect("parses") < VERSION_MIN);
        assert!(parsed("5.12.0").expect("parses") >= VERSION_MIN);
    }
}
