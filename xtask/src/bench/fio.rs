//! Load by fio.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Writes past the page cache: random ones, or from 1 MiB on one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writes<'a> {
    pub(super) device: &'a Path,
    pub(super) block_bytes: u32,
    pub(super) queue_depth: u32,
    pub(super) time: Duration,
}

impl Writes<'_> {
    /// Runs the load; IOPS.
    ///
    /// # Errors
    /// When fio fails.
    pub(super) fn run(&self) -> Result<f64> {
        let mut command = Command::new("fio");
        let pattern = if self.block_bytes < 1 << 20 { "randwrite" } else { "write" };
        command
            .args(["--name=bench", "--direct=1", "--ioengine=libaio"])
            .arg(format!("--rw={pattern}"))
            .arg(format!("--bs={}", self.block_bytes))
            .args(["--norandommap", "--randrepeat=0", "--time_based", "--thread"])
            .arg(format!("--iodepth={}", self.queue_depth))
            .arg(format!("--runtime={}ms", self.time.as_millis()))
            .arg("--filename")
            .arg(self.device)
            .arg("--output-format=json");
        let output = command.output().context("start fio")?;
        if !output.status.success() {
            bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        iops(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Load on an NBD export, on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct NbdLoad<'a> {
    pub(super) uri: &'a str,
    /// As fio calls it: `randread`, `read`, `randwrite`.
    pub(super) rw: &'a str,
    /// As fio writes it: `4k`.
    pub(super) block: &'a str,
    pub(super) queue_depth: u32,
    /// Bytes from the beginning of the disk.
    pub(super) size: u64,
    pub(super) time: Duration,
}

impl NbdLoad<'_> {
    /// Runs the load; IOPS.
    ///
    /// # Errors
    /// When fio fails.
    pub(super) fn run(&self) -> Result<f64> {
        let mut command = Command::new("fio");
        // The engine comes first: it is what knows the option of the URI.
        command
            .args(["--name=bench", "--ioengine=nbd", "--randrepeat=0", "--norandommap"])
            .args(["--time_based", "--thread", "--output-format=json"])
            .arg(format!("--uri={}", self.uri))
            .arg(format!("--rw={}", self.rw))
            .arg(format!("--bs={}", self.block))
            .arg(format!("--size={}", self.size))
            .arg(format!("--iodepth={}", self.queue_depth))
            .arg(format!("--runtime={}ms", self.time.as_millis()));
        let output = command.output().context("start fio")?;
        if !output.status.success() {
            bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let side = if self.rw.ends_with("write") { "write" } else { "read" };
        iops_of(&String::from_utf8_lossy(&output.stdout), side)
    }
}

fn iops(text: &str) -> Result<f64> {
    iops_of(text, "write")
}

/// fio prints warnings before its JSON.
fn iops_of(text: &str, side: &str) -> Result<f64> {
    let json = text.find('{').map(|at| &text[at..]).context("fio prints no JSON")?;
    let result: serde_json::Value = serde_json::from_str(json).context("fio's JSON")?;
    result["jobs"][0][side]["iops"].as_f64().context("fio's JSON has no IOPS")
}

#[cfg(test)]
mod tests {
    use super::iops;

    #[test]
    fn figures_are_found_behind_warnings() {
        let text = "fio: a warning\n{\"jobs\": [{\"write\": {\"iops\": 1234.5}}]}\n";
        assert!((iops(text).expect("found") - 1234.5).abs() < 1e-9);
        assert!(iops("no json").is_err());
    }
}
