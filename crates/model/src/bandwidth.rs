//! How much of a link replication may use, and when.

use std::fmt;
use std::str::FromStr;

/// Most windows of one plan.
pub const BANDWIDTH_WINDOWS_MAX: usize = 64;
/// Least limit in bytes per second: below it a session's own messages would not get through.
pub const BANDWIDTH_BYTES_MIN: u64 = 16 * 1024;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u16 = 24 * 60;

/// A limit for each moment of the week, in local time. As text: limits separated by commas, the
/// first without a time of its own is for the rest of the week, for instance
/// `20MiB/s, mon-fri 08:00-18:00 5MiB/s, sat-sun unlimited`. Where two windows hold at once, the
/// first one written counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BandwidthPlan {
    otherwise: Option<u64>,
    windows: Vec<Window>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Window {
    /// First and last day, 0 is Monday; the last may lie before the first (`sat-mon`).
    days: (u8, u8),
    /// First minute of the day, and the one after the last; a window that ends before it begins
    /// goes on into the next day.
    minutes: (u16, u16),
    /// Bytes per second; none: no limit.
    limit: Option<u64>,
}

/// Why a text is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BandwidthError {
    /// Not a number with a unit, or out of bounds.
    #[error(
        "{0:?} is no limit: say bytes per second, for instance 5MiB/s, 100Mbit/s (at least \
         16KiB/s), or unlimited"
    )]
    Limit(String),
    /// Not days.
    #[error("{0:?} are no days: say for instance mon-fri or sun")]
    Days(String),
    /// Not a time of the day.
    #[error("{0:?} is no time: say for instance 08:00-18:00, in local time")]
    Time(String),
    /// A limit for all times stands behind a window.
    #[error("{0:?}: the limit for the rest of the week comes first and only once")]
    Order(String),
    /// Too many.
    #[error("more than {BANDWIDTH_WINDOWS_MAX} windows")]
    Windows,
}

impl BandwidthPlan {
    /// True where there is never a limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.otherwise.is_none() && self.windows.iter().all(|window| window.limit.is_none())
    }

    /// Bytes per second in this minute (0 to 1439) of this day (0 to 6, 0 is Monday); none: no
    /// limit.
    #[must_use]
    pub fn limit_at(&self, day: u8, minute: u16) -> Option<u64> {
        let held = self.windows.iter().find(|window| window.holds(day, minute));
        held.map_or(self.otherwise, |window| window.limit)
    }
}

impl Window {
    fn holds(&self, day: u8, minute: u16) -> bool {
        let (from, to) = self.minutes;
        if from < to {
            return self.on(day) && (from..to).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        (self.on(day) && minute >= from) || (self.on(yesterday) && minute < to)
    }

    const fn on(&self, day: u8) -> bool {
        let (first, last) = self.days;
        if first <= last { first <= day && day <= last } else { day >= first || day <= last }
    }
}

impl FromStr for BandwidthPlan {
    type Err = BandwidthError;

    fn from_str(text: &str) -> Result<Self, BandwidthError> {
        let mut plan = Self::default();
        for (at, part) in text.split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate()
        {
            let words: Vec<&str> = part.split_whitespace().collect();
            let (limit, when) = words.split_last().expect("an empty part was left out");
            let limit = parse_limit(limit)?;
            if when.is_empty() {
                if at > 0 {
                    return Err(BandwidthError::Order(part.to_owned()));
                }
                plan.otherwise = limit;
                continue;
            }
            if plan.windows.len() == BANDWIDTH_WINDOWS_MAX {
                return Err(BandwidthError::Windows);
            }
            let (days, minutes) = match when {
                [one] if one.contains(':') => ((0, 6), parse_time(one)?),
                [one] => (parse_days(one)?, (0, DAY_MINUTES)),
                [days, time] => (parse_days(days)?, parse_time(time)?),
                _ => return Err(BandwidthError::Time(when.join(" "))),
            };
            plan.windows.push(Window { days, minutes, limit });
        }
        Ok(plan)
    }
}

fn parse_limit(text: &str) -> Result<Option<u64>, BandwidthError> {
    // Longer names first: "MB/s" is the end of none of the others, "B/s" of all.
    const UNITS: [(&str, u64, u64); 10] = [
        ("KiB/s", 1 << 10, 1),
        ("MiB/s", 1 << 20, 1),
        ("GiB/s", 1 << 30, 1),
        ("kB/s", 1_000, 1),
        ("MB/s", 1_000_000, 1),
        ("GB/s", 1_000_000_000, 1),
        ("kbit/s", 1_000, 8),
        ("Mbit/s", 1_000_000, 8),
        ("Gbit/s", 1_000_000_000, 8),
        ("B/s", 1, 1),
    ];
    let wrong = || BandwidthError::Limit(text.to_owned());
    if text == "unlimited" {
        return Ok(None);
    }
    let unit = UNITS.iter().find_map(|unit| text.strip_suffix(unit.0).map(|rest| (rest, unit)));
    let (number, (_, times, over)) = unit.ok_or_else(wrong)?;
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    let limit = number.checked_mul(*times).ok_or_else(wrong)? / over;
    if limit < BANDWIDTH_BYTES_MIN {
        return Err(wrong());
    }
    Ok(Some(limit))
}

fn parse_days(text: &str) -> Result<(u8, u8), BandwidthError> {
    let wrong = || BandwidthError::Days(text.to_owned());
    let day = |name: &str| {
        let at = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        at.and_then(|at| u8::try_from(at).ok()).ok_or_else(wrong)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok((day(first)?, day(last)?))
}

fn parse_time(text: &str) -> Result<(u16, u16), BandwidthError> {
    let minute = |time: &str| {
        let (hour, minute) = time.split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        let at = hour.checked_mul(60)?.checked_add(minute)?;
        (minute < 60 && at <= DAY_MINUTES).then_some(at)
    };
    let range = text.split_once('-').and_then(|(from, to)| minute(from).zip(minute(to)));
    range
        .filter(|(from, to)| from != to && *from < DAY_MINUTES)
        .ok_or_else(|| BandwidthError::Time(text.to_owned()))
}

impl fmt::Display for BandwidthPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_limit(f, self.otherwise)?;
        for Window { days: (first, last), minutes: (from, to), limit } in &self.windows {
            let day = |day: u8| DAYS[usize::from(day)];
            write!(f, ", {}-{} ", day(*first), day(*last))?;
            let (hours, to_hours) = (from / 60, to / 60);
            write!(f, "{hours:02}:{:02}-{to_hours:02}:{:02} ", from % 60, to % 60)?;
            write_limit(f, *limit)?;
        }
        Ok(())
    }
}

fn write_limit(f: &mut fmt::Formatter<'_>, limit: Option<u64>) -> fmt::Result {
    match limit {
        None => f.write_str("unlimited"),
        Some(limit) if limit % (1 << 20) == 0 => write!(f, "{}MiB/s", limit >> 20),
        Some(limit) if limit % (1 << 10) == 0 => write!(f, "{}KiB/s", limit >> 10),
        Some(limit) => write!(f, "{limit}B/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> BandwidthPlan {
        text.parse().expect(text)
    }

    #[test]
    fn office_hours_are_slower() {
        let plan = plan("20MiB/s, mon-fri 08:00-18:00 5MiB/s, sat-sun unlimited");
        let (fast, slow) = (Some(20 << 20), Some(5 << 20));
        assert_eq!(plan.limit_at(0, 8 * 60 - 1), fast);
        assert_eq!(plan.limit_at(0, 8 * 60), slow);
        assert_eq!(plan.limit_at(4, 18 * 60 - 1), slow);
        assert_eq!(plan.limit_at(4, 18 * 60), fast);
        assert_eq!(plan.limit_at(5, 12 * 60), None);
        assert!(!plan.is_unlimited());
        assert!(BandwidthPlan::default().is_unlimited());
    }

    #[test]
    fn a_window_may_go_over_midnight_and_over_the_week_s_end() {
        let plan = plan("unlimited, sat-mon 22:00-06:00 1MiB/s");
        let slow = Some(1 << 20);
        for (day, hour, expected) in [
            (4, 23, None),
            (5, 5, None),
            (5, 22, slow),
            (6, 5, slow),
            (0, 23, slow),
            (1, 5, slow),
            (1, 6, None),
            (1, 23, None),
        ] {
            assert_eq!(plan.limit_at(day, hour * 60), expected, "day {day}, {hour} h");
        }
    }

    #[test]
    fn the_first_window_that_holds_counts() {
        let plan = plan("12:00-13:00 unlimited, mon 1MiB/s");
        assert_eq!(plan.limit_at(0, 12 * 60), None);
        assert_eq!(plan.limit_at(0, 13 * 60), Some(1 << 20));
        assert_eq!(plan.limit_at(1, 13 * 60), None);
    }

    #[test]
    fn units_are_bytes_or_bits() {
        for (text, bytes) in
            [("100Mbit/s", 12_500_000), ("16KiB/s", 16_384), ("1GB/s", 1_000_000_000)]
        {
            assert_eq!(plan(text).limit_at(3, 0), Some(bytes));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["unlimited", "5MiB/s", "16400B/s, fri-mon 22:30-24:00 64KiB/s"] {
            let plan = plan(text);
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_to_say() {
        use BandwidthError as E;
        let refused = |text: &str| text.parse::<BandwidthPlan>().expect_err(text);
        for text in ["5", "5MiB", "1KiB/s", "0MiB/s", "-1MiB/s", "99999999999GiB/s", "fast"] {
            assert!(matches!(refused(text), E::Limit(_)), "{text}");
        }
        assert!(matches!(refused("xyz 1MiB/s"), E::Days(_)));
        for text in
            ["mon 8-18 1MiB/s", "08:00-08:00 1MiB/s", "08:61-09:00 1MiB/s", "24:00-01:00 1MiB/s"]
        {
            assert!(matches!(refused(text), E::Time(_)), "{text}");
        }
        assert!(matches!(refused("mon 1MiB/s, 2MiB/s"), E::Order(_)));
        let many = vec!["mon 1MiB/s"; BANDWIDTH_WINDOWS_MAX + 1].join(",");
        assert_eq!(refused(&many), E::Windows);
    }
}
