//! Names of exports: `MACHINE/DISK@WHAT`. Pure. Normative: `docs/formats/nbd.md`.

use landfall_types::{DiskIndex, Lsn, UnixNanos};
use landfall_volume::PointSelector;

/// Names a view of the newest recovery point.
pub(crate) const LATEST: &str = "latest";
/// Comes before the name of a recovery point that a person put.
const POINT: &str = "point:";
/// Most bytes of a branch's name.
const BRANCH_BYTES_MAX: usize = 64;

/// What is served of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// A view.
    View(PointSelector),
    /// A branch.
    Branch(String),
}

impl What {
    /// True when the name leads to the same content for ever: a client may then read it over
    /// several connections. A time does not, because a marker that is still on its way may fit it
    /// better.
    pub(crate) const fn is_fixed(&self) -> bool {
        matches!(self, Self::View(PointSelector::Lsn(_)))
    }
}

/// An export's name, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExportName {
    pub(crate) machine: String,
    pub(crate) disk: DiskIndex,
    pub(crate) what: What,
}

impl ExportName {
    /// `None` for what can't be a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (disk, what) = text.rsplit_once('@')?;
        let (machine, disk) = disk.rsplit_once('/')?;
        let disk = DiskIndex(disk.parse().ok()?);
        Some(Self { machine: machine.to_owned(), disk, what: parse_what(what)? })
    }
}

/// The name of an export.
pub(crate) fn export_name(machine: &str, disk: DiskIndex, what: &str) -> String {
    format!("{machine}/{disk}@{what}")
}

/// True when a branch can have this name: it must not be taken for a position.
pub(crate) fn branch_name_fits(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let length = (1..=BRANCH_BYTES_MAX).contains(&name.len());
    length && name.bytes().all(plain) && name != LATEST && name.parse::<Lsn>().is_err()
}

fn parse_what(what: &str) -> Option<What> {
    if what == LATEST {
        return Some(What::View(PointSelector::Newest));
    }
    if let Ok(lsn) = what.parse() {
        return Some(What::View(PointSelector::Lsn(lsn)));
    }
    if let Some(name) = what.strip_prefix(POINT) {
        return Some(What::View(PointSelector::Name(name.to_owned())));
    }
    // No branch has a colon in its name, and every time has.
    if what.contains(':') {
        return Some(What::View(PointSelector::Time(parse_time(what)?)));
    }
    branch_name_fits(what).then(|| What::Branch(what.to_owned()))
}

/// `2026-11-21T14:05:00Z`, with up to nine digits of a second's fraction: RFC 3339 in UTC. An
/// offset is not taken, because its plus sign would have to be encoded in a URI, and often isn't.
fn parse_time(text: &str) -> Option<UnixNanos> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let in_day = hour < 24 && minute < 60 && second < 60;
    let length = days_of(year, month)?;
    if year < 1970 || !(1..=length).contains(&day) || !in_day || !digits || fraction.len() > 9 {
        return None;
    }
    let whole_years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).filter_map(|month| days_of(year, month)).sum();
    let days = whole_years + months + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(UnixNanos)
}

/// Numbers of exactly these many digits.
fn numbers(text: &str, sign: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let parts: Vec<&str> = text.split(sign).collect();
    let parts: [&str; 3] = parts.try_into().ok()?;
    let mut numbers = [0; 3];
    for (at, part) in parts.iter().enumerate() {
        let plain = part.len() == digits[at] && part.bytes().all(|byte| byte.is_ascii_digit());
        numbers[at] = if plain { part.parse().ok()? } else { return None };
    }
    Some(numbers)
}

const fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u64, month: u64) -> Option<u64> {
    match month {
        2 if leap(year) => Some(29),
        2 => Some(28),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &str) -> Option<What> {
        ExportName::parse(&format!("web-1/0@{text}")).map(|name| name.what)
    }

    #[test]
    fn a_branch_is_never_taken_for_a_position() {
        for name in ["epoch-2", "test-1", "a.b_c"] {
            assert!(branch_name_fits(name), "{name}");
            assert_eq!(what(name), Some(What::Branch(name.into())));
        }
        for name in ["", "latest", "17", "a b", "a@b", "a/b", &"x".repeat(65)] {
            assert!(!branch_name_fits(name), "{name}");
            assert!(!matches!(what(name), Some(What::Branch(_))), "{name}");
        }
    }

    #[test]
    fn every_way_to_name_a_position_is_understood() {
        let view = |selector| Some(What::View(selector));
        assert_eq!(what("latest"), view(PointSelector::Newest));
        assert_eq!(what("17"), view(PointSelector::Lsn(Lsn::new(17))));
        assert_eq!(what("point:before 3.0"), view(PointSelector::Name("before 3.0".into())));
        let at = |nanos| view(PointSelector::Time(UnixNanos(nanos)));
        assert_eq!(what("1970-01-01T00:00:00Z"), at(0));
        assert_eq!(what("2000-02-29T23:59:59.5Z"), at(951_868_799_500_000_000));
        assert_eq!(what("2026-11-21T14:05:00Z"), at(1_795_269_900_000_000_000));
        assert_eq!(what("2100-03-01T00:00:00.000000001Z"), at(4_107_542_400_000_000_001));
        let name = ExportName::parse("a/b/3@latest").expect("a name");
        assert_eq!((name.machine.as_str(), name.disk), ("a/b", DiskIndex(3)));
    }

    #[test]
    fn only_a_position_that_never_moves_is_fixed() {
        for (text, fixed) in
            [("latest", false), ("17", true), ("2026-11-21T14:05:00Z", false), ("point:a", false)]
        {
            assert_eq!(what(text).map(|what| what.is_fixed()), Some(fixed), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in [
            "2026-11-21T14:05:00",
            "2026-11-21T14:05:00+01:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-1-1T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            ":",
            "a:b",
        ] {
            assert_eq!(what(text), None, "{text}");
        }
        for name in ["", "a", "a@latest", "a/0", "a/x@latest", "a/-1@latest", "a/70000@latest"] {
            assert_eq!(ExportName::parse(name), None, "{name}");
        }
    }
}
