//! The table of kernels: made here, by `cargo xtask compat`, not by hand.

use std::fmt::Write as _;

use landfall_guest::{Disk, Kernel};
use landfall_testkit::require;

use crate::loads::{FILE_SYSTEMS, MIB, PLAIN, boot, files, spec, with_file_systems};
use crate::verdict::{Verdict, capture};

/// What was tried in the guest of one kernel.
struct Row {
    series: (u32, u32),
    flavor: String,
    release: String,
    /// Raw, then the file systems; or why there was no capture at all.
    verdicts: Vec<Verdict>,
}

impl Row {
    fn of(kernel: Kernel) -> Self {
        let (series, flavor) = kernel.name().split_once('-').expect("SERIES-FLAVOR");
        let (major, minor) = series.split_once('.').expect("a series has two numbers");
        let number = |text: &str| text.parse().expect("a number");
        let (series, flavor) = ((number(major), number(minor)), flavor.to_owned());
        let release = kernel.release().to_owned();
        eprintln!("== {release}");
        let mut verdicts = Vec::new();
        let mut guest = boot(with_file_systems(spec(kernel)).disk(Disk::blank("data", 320 * MIB)));
        let device = guest.run("disk data").unwrap();
        verdicts.push(capture(&mut guest, &device, PLAIN));
        for (_, make, mount) in FILE_SYSTEMS {
            if matches!(verdicts[0], Verdict::Refused(_)) {
                break;
            }
            verdicts.push(capture(&mut guest, &device, &files(make, mount)));
        }
        Self { series, flavor, release, verdicts }
    }

    fn line(&self) -> String {
        let (major, minor) = self.series;
        let mut line = format!("| {major}.{minor} | {} | {} |", self.flavor, self.release);
        for column in 0..=FILE_SYSTEMS.len() {
            let cell = match self.verdicts.get(column) {
                Some(Verdict::Equal { .. }) => "identical".to_owned(),
                Some(Verdict::Refused(why)) => format!("refused: {why}"),
                Some(Verdict::Marked(why)) => format!("bitmap: {why}"),
                Some(Verdict::Differs { at }) => format!("**differs at {at}**"),
                None => "–".to_owned(),
            };
            write!(line, " {cell} |").expect("a string takes everything");
        }
        line + "\n"
    }
}

fn page(rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    page += "| series | flavor | kernel | raw |";
    for (name, _, _) in FILE_SYSTEMS {
        write!(page, " {name} |").expect("a string takes everything");
    }
    page += "\n|---|---|---|---|---|---|---|\n";
    for row in rows {
        page += &row.line();
    }
    page
}

const HEAD: &str = "# Kernels that bytes can be captured on

Made by `cargo xtask compat`, not by hand: each line is a guest in QEMU (x86-64, virtio disk) with
that kernel of Debian, as its package has it. The agent's programs were loaded there, the self-test
ran, and a disk was captured under four loads: raw writes of many sizes and alignments, and files
made, changed, moved and deleted on three file systems, with trims.

* *Identical*: the replay of the captured writes is the disk, byte for byte. What was discarded and
  not written again is left out (T-23).
* *Bitmap*: no bytes are captured there, for the reason that is named, and every block that was
  written has its bit.
* *Refused*: the agent says that it can't do either there, and why.

CI repeats this for the newest kernels of two series; the others are as of the command's last run.

";

/// Writes the table of all kernels that were fetched to the file that `LANDFALL_COMPATIBILITY`
/// names.
#[test]
#[ignore = "minutes: run by `cargo xtask compat`"]
fn write_the_table() {
    if !require(&["qemu", "e2fsprogs"]) {
        return;
    }
    let path = std::env::var("LANDFALL_COMPATIBILITY").expect("names a file");
    let mut rows: Vec<_> = Kernel::all().into_iter().map(Row::of).collect();
    assert!(!rows.is_empty(), "`cargo xtask guest-kernels --all` has fetched none");
    rows.sort_by(|a, b| (a.series, &a.flavor).cmp(&(b.series, &b.flavor)));
    std::fs::write(path, page(&rows)).unwrap();
}

#[test]
fn a_row_says_what_happened() {
    let row = Row {
        series: (6, 1),
        flavor: "cloud".to_owned(),
        release: "6.1.0-56-cloud-amd64".to_owned(),
        verdicts: vec![
            Verdict::Equal { bytes: 1, records: 1 },
            Verdict::Marked("no-data-mode".to_owned()),
        ],
    };
    let expected =
        "| 6.1 | cloud | 6.1.0-56-cloud-amd64 | identical | bitmap: no-data-mode | – | – |\n";
    assert_eq!(row.line(), expected);
    assert!(page(&[row]).ends_with(expected));
}
