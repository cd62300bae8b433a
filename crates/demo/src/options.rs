use std::path::PathBuf;

/// Options of `landfall demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Repeat a run: workload, points and the moment of the disaster follow from it [default:
    /// another one each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Leave the roles and the machine running at the end, and print the commands to go on by hand
    #[arg(long)]
    pub keep: bool,
    /// Size of each of the two disks, e.g. 256M or 1G [default: 256M; with --quick 64M]
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Small and short, for continuous integration
    #[arg(long)]
    pub quick: bool,
    /// Encrypt the replica at the recovery site, with a key of the run's own
    #[arg(long)]
    pub encrypt: bool,
    /// Directory to work in; needs room
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Only remove what earlier runs left, kept ones included
    #[arg(long)]
    pub clean_up: bool,
}

/// Smallest disk: less has no room for a file system, files and a workload.
const SIZE_MIN: u64 = 48 << 20;
/// Largest disk: a demo of more takes hours.
const SIZE_MAX: u64 = 1 << 40;

/// Bytes with K, M or G (of 1024), rounded down to whole MiB.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, text.chars().last().unwrap_or_default()),
        None => (text, 'B'),
    };
    let shift = match unit {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => 0,
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size like 256M or 1G"))?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))?;
    if !(SIZE_MIN..=SIZE_MAX).contains(&bytes) {
        return Err(format!("a disk of the demo has 48M to 1024G, not {text}"));
    }
    Ok(bytes >> 20 << 20)
}

/// How large everything is in this run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scale {
    /// Of each disk.
    pub(crate) disk_bytes: u64,
    /// Of the volume of the recovery site's master target.
    pub(crate) retention_bytes: u64,
    /// Of the volume of home's master target.
    pub(crate) home_retention_bytes: u64,
    /// Between crash-consistent markers.
    pub(crate) marker_interval_ms: u64,
    /// Test failovers to positions between markers.
    pub(crate) random_points: u64,
    /// Entries that the workload writes wherever it is given time to work.
    pub(crate) entries: u64,
    /// What is told beforehand.
    pub(crate) minutes: f64,
}

impl DemoOptions {
    pub(crate) fn scale(&self) -> Scale {
        let disk_bytes = self.size.unwrap_or(if self.quick { 64 << 20 } else { 256 << 20 });
        let gib = 1 << 30;
        Scale {
            disk_bytes,
            retention_bytes: gib + 2 * disk_bytes,
            home_retention_bytes: gib / 2 + 2 * disk_bytes,
            marker_interval_ms: if self.quick { 1_000 } else { 3_000 },
            random_points: if self.quick { 2 } else { 5 },
            entries: if self.quick { 60 } else { 300 },
            minutes: if self.quick { 1.0 } else { 2.0 },
        }
    }
}

impl Scale {
    /// Space that a run takes at most: disks, images at the recovery site, volumes of both master
    /// targets.
    pub(crate) const fn space_bytes(&self) -> u64 {
        4 * self.disk_bytes + self.retention_bytes + self.home_retention_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_bounded() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("100000000"), Ok(95 << 20));
        for bad in
            ["", "M", "-1M", "47M", "1025G", "99999999999999999999", "18446744073709551615G", "5T"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
