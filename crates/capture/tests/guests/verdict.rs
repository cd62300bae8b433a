//! What came out of a capture in a guest, as a line that leaves it.

use std::fmt;
use std::str::FromStr;

use landfall_guest::Guest;

/// What came out of capturing one disk under one load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The replay is the disk, byte for byte; so many bytes and records were captured.
    Equal { bytes: u64, records: u64 },
    /// Capture did not begin, and said why.
    Refused(String),
    /// Bytes were not captured, or not to the end, and this is why; every byte in which the replay
    /// differs has its bit in the bitmap.
    Marked(String),
    /// The worst: nobody noticed.
    Differs { at: u64 },
}

const HEAD: &str = "VERDICT ";

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal { bytes, records } => write!(f, "{HEAD}equal {bytes} {records}"),
            Self::Refused(why) => write!(f, "{HEAD}refused {why}"),
            Self::Marked(why) => write!(f, "{HEAD}marked {why}"),
            Self::Differs { at } => write!(f, "{HEAD}differs {at}"),
        }
    }
}

impl FromStr for Verdict {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (kind, rest) = line.strip_prefix(HEAD).and_then(|l| l.split_once(' ')).ok_or(())?;
        let number = |text: &str| text.parse::<u64>().map_err(drop);
        match kind {
            "equal" => {
                let (bytes, records) = rest.split_once(' ').ok_or(())?;
                Ok(Self::Equal { bytes: number(bytes)?, records: number(records)? })
            }
            "refused" => Ok(Self::Refused(rest.to_owned())),
            "marked" => Ok(Self::Marked(rest.to_owned())),
            "differs" => Ok(Self::Differs { at: number(rest)? }),
            _ => Err(()),
        }
    }
}

/// Captures `device` (a path, or the output of a command) in the guest while its shell runs `load`,
/// which finds the device in `$DEVICE`.
pub(crate) fn capture(guest: &mut Guest, device: &str, load: &str) -> Verdict {
    guest.run(&format!("cat >/run/load <<'END'\nset -e\n{load}\nEND")).unwrap();
    let environment = format!("DEVICE={device}");
    let output = guest.run_test("inside::replay", &environment).unwrap_or_else(|error| {
        panic!("{error}\nkernel log:\n{}", guest.run("dmesg | tail -n 40").unwrap_or_default())
    });
    let verdict = output.lines().find_map(|line| line.parse().ok());
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict in:\n{output}"));
    eprintln!("{device}: {verdict}");
    verdict
}

impl Verdict {
    /// Equal, and at least so many bytes were written: the load was one.
    pub(crate) fn assert_equal(&self, bytes_min: u64) {
        let Self::Equal { bytes, .. } = self else { panic!("{self}") };
        assert!(*bytes >= bytes_min, "the load wrote only {bytes} bytes");
    }

    /// Noticed: the agent knows that it has to compare.
    pub(crate) fn assert_noticed(&self) {
        assert!(matches!(self, Self::Refused(_) | Self::Marked(_)), "{self}");
    }
}

#[test]
fn verdicts_leave_the_guest_as_they_are() {
    let all = [
        Verdict::Equal { bytes: 5, records: 1 },
        Verdict::Refused("Linux 5.17 or newer is needed".to_owned()),
        Verdict::Marked("write-beside-hook".to_owned()),
        Verdict::Differs { at: 7 },
    ];
    for verdict in all {
        assert_eq!(verdict.to_string().parse(), Ok(verdict));
    }
    assert_eq!("VERDICT x 1".parse::<Verdict>(), Err(()));
}
