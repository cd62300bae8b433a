//! What this machine offers, without changing anything but a scratch disk: for `doctor` and for
//! fleets.

use crate::disk::Disk;
use crate::kernel::{self, Release};
use crate::{CaptureError, Options, self_test};
use libbpf_rs::btf::{Btf, types};
use rustix::thread::CapabilitySet;
use std::fs;
use std::path::Path;

/// How the writes of a disk can be followed; the better, the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Offer {
    /// Not at all by eBPF: changes are found by comparing hashes.
    Compare,
    /// Changed ranges.
    Bitmap,
    /// Every write with its bytes, in order.
    Data,
}

impl Offer {
    /// Stable word.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Bitmap => "bitmap",
            Self::Data => "data",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Stable code, kebab-case.
    pub code: &'static str,
    /// What was found.
    pub found: String,
    /// The best that is possible with it.
    pub allows: Offer,
    /// What would improve it; `None` where nothing is wrong.
    pub cure: Option<&'static str>,
}

/// What this machine offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// `uname -r`.
    pub release: String,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}

impl Probe {
    /// The best that all findings allow.
    #[must_use]
    pub fn offer(&self) -> Offer {
        self.findings.iter().map(|finding| finding.allows).min().unwrap_or(Offer::Compare)
    }

    /// What stands in the way of something better.
    pub fn obstacles(&self) -> impl Iterator<Item = &Finding> {
        let offer = self.offer();
        self.findings
            .iter()
            .filter(move |finding| finding.allows == offer && finding.allows < Offer::Data)
    }
}

/// What can be done for one disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskOffer {
    /// The disk, where it is one.
    pub disk: Option<Disk>,
    /// The best for it; `None`: it can't be protected at all.
    pub offer: Option<Offer>,
    /// Stable code of what limits it: an [`crate::Unfit`] or a [`Finding`]; `None` in data mode.
    pub code: Option<&'static str>,
    /// The same in words.
    pub reason: Option<String>,
}

/// Looks at the kernel and at our privileges; loads the programs and runs the self-test where
/// nothing speaks against it.
#[must_use]
pub fn probe(options: &Options) -> Probe {
    let release = kernel::release();
    let mut findings = vec![
        architecture(),
        version(&release),
        capabilities(),
        lockdown(),
        symbols(),
        pin_place(options),
    ];
    findings.extend(type_information());
    let mut probe = Probe { release, findings };
    if probe.offer() == Offer::Data {
        probe.findings.push(self_tested(options));
    }
    probe
}

/// What can be done for the disk at `path`, on a machine that offers this.
#[must_use]
pub fn probe_disk(machine: &Probe, path: &Path) -> DiskOffer {
    let refused = |code, reason| DiskOffer { disk: None, offer: None, code, reason };
    match Disk::inspect(path) {
        Ok(disk) => {
            let obstacle = machine.obstacles().next();
            DiskOffer {
                disk: Some(disk),
                offer: Some(machine.offer()),
                code: obstacle.map(|finding| finding.code),
                reason: obstacle.map(|finding| finding.found.clone()),
            }
        }
        Err(CaptureError::Disk { reason, .. }) => {
            refused(Some(reason.code()), Some(reason.to_string()))
        }
        Err(error) => refused(Some("unreadable"), Some(error.to_string())),
    }
}

fn finding(code: &'static str, found: impl Into<String>) -> Finding {
    Finding { code, found: found.into(), allows: Offer::Data, cure: None }
}

impl Finding {
    fn but(mut self, allows: Offer, cure: &'static str) -> Self {
        self.allows = allows;
        self.cure = Some(cure);
        self
    }
}

fn architecture() -> Finding {
    let found = finding("architecture", std::env::consts::ARCH);
    if cfg!(target_arch = "x86_64") {
        return found;
    }
    found.but(Offer::Compare, "only x86-64 is supported so far")
}

fn version(release: &str) -> Finding {
    let found = finding("kernel-version", release);
    match Release::parse(release) {
        Some(release) if release >= kernel::VERSION_MIN => found,
        _ => found.but(Offer::Compare, "a kernel of series 5.12 or newer (data mode: 5.17)"),
    }
}

fn capabilities() -> Finding {
    let needed = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    match held {
        Ok(held) if held.contains(CapabilitySet::SYS_ADMIN) => {
            finding("capabilities", "CAP_SYS_ADMIN")
        }
        Ok(held) if held.contains(needed) => finding("capabilities", "CAP_BPF, CAP_PERFMON"),
        Ok(_) | Err(_) => finding("capabilities", "CAP_BPF and CAP_PERFMON are missing")
            .but(Offer::Compare, "run it as root, or with CAP_BPF and CAP_PERFMON"),
    }
}

fn lockdown() -> Finding {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let mode = text.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("none");
    let found = finding("lockdown", mode);
    match mode {
        "confidentiality" => found.but(
            Offer::Bitmap,
            "lockdown in integrity mode: confidentiality forbids programs to read written bytes",
        ),
        _ => found,
    }
}

/// Only says where the addresses come from: whether they are right is the self-test's to say.
fn symbols() -> Finding {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let told = |name: &str| symbols.lines().any(|line| line.split(' ').nth(2) == Some(name));
    if told("page_offset_base") && told("vmemmap_base") {
        finding("kernel-addresses", "told by the kernel")
    } else {
        finding("kernel-addresses", "supposed: the kernel was built without KALLSYMS_ALL")
    }
}

fn pin_place(options: &Options) -> Finding {
    let standard = Path::new("/sys/fs/bpf");
    let place = options.pin.as_deref().unwrap_or(standard);
    if crate::pins::is_bpffs(standard) {
        return finding("bpffs", format!("mounted; pins at {}", place.display()));
    }
    match standard.exists() {
        true => finding("bpffs", "not mounted; the agent mounts it when it starts"),
        false => {
            let mut found = finding("bpffs", "this kernel has none: capture ends with the agent");
            found.cure = Some("a kernel with CONFIG_BPF_SYSCALL and sysfs");
            found
        }
    }
}

/// What the kernel's own description says of hooks and helpers.
fn type_information() -> Vec<Finding> {
    let Ok(btf) = Btf::from_vmlinux() else {
        let cure = "a kernel with CONFIG_DEBUG_INFO_BTF";
        let found = finding("btf", "/sys/kernel/btf/vmlinux can't be read");
        return vec![found.but(Offer::Compare, cure)];
    };
    let mut findings = vec![finding("btf", "present")];
    let hooks = ["block_bio_queue", "block_rq_issue", "block_rq_complete", "block_bio_complete"];
    let missing: Vec<_> = hooks
        .into_iter()
        .filter(|hook| {
            btf.type_by_name::<types::Typedef<'_>>(&format!("btf_trace_{hook}")).is_none()
        })
        .collect();
    findings.push(match missing[..] {
        [] => finding("hooks", hooks.join(", ")),
        _ => finding("hooks", format!("missing: {}", missing.join(", ")))
            .but(Offer::Compare, "a kernel with CONFIG_BLK_DEV and tracepoints"),
    });
    findings.push(match has_loop(&btf) {
        true => finding("bpf-loop", "present"),
        false => finding("bpf-loop", "missing").but(Offer::Bitmap, "Linux 5.17 or newer"),
    });
    findings
}

/// Whether the kernel has the helper `bpf_loop`.
fn has_loop(btf: &Btf<'_>) -> bool {
    let helpers: Option<types::Enum<'_>> = btf.type_by_name("bpf_func_id");
    helpers.is_some_and(|helpers| {
        helpers.iter().any(|member| member.name.is_some_and(|name| name == "BPF_FUNC_loop"))
    })
}

fn self_tested(options: &Options) -> Finding {
    match self_test(options) {
        Ok(report) => {
            finding("self-test", format!("{} bytes captured as they were written", report.bytes))
        }
        Err(error @ CaptureError::SelfTest(_)) => finding("self-test", causes(&error))
            .but(Offer::Bitmap, "a kernel that tells its addresses (KALLSYMS_ALL)"),
        Err(error) => {
            finding("self-test", causes(&error)).but(Offer::Compare, "what the finding names")
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_finding_decides() {
        let good = finding("a", "x");
        let bad = finding("b", "y").but(Offer::Bitmap, "z");
        let machine = |findings: &[&Finding]| Probe {
            release: "6.1".to_owned(),
            findings: findings.iter().map(|finding| (*finding).clone()).collect(),
        };
        assert_eq!(machine(&[&good]).offer(), Offer::Data);
        assert_eq!(machine(&[&good]).obstacles().count(), 0);
        let limited = machine(&[&good, &bad]);
        assert_eq!(limited.offer(), Offer::Bitmap);
        assert_eq!(limited.obstacles().map(|finding| finding.code).collect::<Vec<_>>(), ["b"]);
        assert_eq!(machine(&[]).offer(), Offer::Compare, "nothing looked at, nothing promised");
        assert_eq!(version("5.4.0-150-generic").allows, Offer::Compare);
        assert_eq!(version("6.1.0-9-amd64").allows, Offer::Data);
    }
}
