//! Values of options, as people write them.

use super::keeping::{SizeLimit, Tiers};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use landfall_types::{MarkerKind, ThinningTier, UnixNanos};

/// A moment: RFC 3339, or date and time of the local zone.
pub(super) fn parse_time(text: &str) -> Result<UnixNanos, String> {
    let time = text.parse::<Timestamp>().or_else(|_| {
        let local: DateTime = text.parse()?;
        local.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp())
    });
    let wrong = |_| format!("{text:?} is no time like 2026-03-01T12:00:00Z");
    let nanos = time.map_err(wrong)?.as_nanosecond();
    u64::try_from(nanos).map(UnixNanos).map_err(|_| format!("{text:?} lies before 1970"))
}

/// A length of time in milliseconds: `500ms`, `5s`, `2h`.
pub(super) fn parse_millis(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time like 500ms, 5s or 24h");
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(duration.as_millis()).map_err(|_| wrong())
}

/// A length of time in seconds: `30m`, `24h`.
pub(super) fn parse_seconds(text: &str) -> Result<u64, String> {
    let millis = parse_millis(text)?;
    match millis % 1000 {
        0 => Ok(millis / 1000),
        _ => Err(format!("{text:?} is not whole seconds")),
    }
}

/// A size in bytes: `500GiB`, `64MiB`, `1000000`; or `none`.
pub(super) fn parse_bytes(text: &str) -> Result<SizeLimit, String> {
    if text == "none" {
        return Ok(SizeLimit(None));
    }
    let wrong = || format!("{text:?} is no size like 500GiB, 64MiB or none");
    let digits = text.trim_end_matches(|sign: char| !sign.is_ascii_digit());
    let unit: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).map(|bytes| SizeLimit(Some(bytes))).ok_or_else(wrong)
}

/// Tiers: `5s:2h,1m:24h`.
pub(super) fn parse_thinning(text: &str) -> Result<Tiers, String> {
    let tier = |part: &str| {
        let (every, until) =
            part.split_once(':').ok_or_else(|| format!("{part:?} is no tier like 5s:2h"))?;
        Ok(ThinningTier { every_s: parse_seconds(every)?, until_age_s: parse_seconds(until)? })
    };
    text.split(',').map(tier).collect::<Result<_, String>>().map(Tiers)
}

/// What a point promises.
pub(super) fn parse_kind(text: &str) -> Result<MarkerKind, String> {
    match text {
        "crash-consistent" => Ok(MarkerKind::CrashConsistent),
        "file-system-consistent" => Ok(MarkerKind::FileSystemConsistent),
        "application-consistent" => Ok(MarkerKind::ApplicationConsistent),
        "user" | "named" => Ok(MarkerKind::User),
        _ => Err(format!("{text:?} is no kind of point")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_tiers_and_kinds_are_read() {
        assert_eq!(parse_bytes("500GiB"), Ok(SizeLimit(Some(500 << 30))));
        assert_eq!(parse_bytes("17"), Ok(SizeLimit(Some(17))));
        assert_eq!(parse_bytes("none"), Ok(SizeLimit(None)));
        for bad in ["", "GiB", "5GB", "-1", "99999999999TiB", "ä"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        let tier = |every_s, until_age_s| ThinningTier { every_s, until_age_s };
        assert_eq!(
            parse_thinning("5s:2h,1m:24h"),
            Ok(Tiers(vec![tier(5, 7200), tier(60, 86_400)]))
        );
        for bad in ["", "5s", "5s:", "5s:2h,"] {
            assert!(parse_thinning(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_kind("user"), Ok(MarkerKind::User));
        assert!(parse_kind("best").is_err());
    }

    #[test]
    fn times_and_lengths_are_read() {
        let noon = UnixNanos(1_772_366_400_000_000_000);
        assert_eq!(parse_time("2026-03-01T12:00:00Z"), Ok(noon));
        assert_eq!(parse_time("2026-03-01T13:00:00+01:00"), Ok(noon));
        assert!(parse_time("2026-03-01 13:00").is_ok());
        assert_eq!(parse_millis("500ms"), Ok(500));
        assert_eq!(parse_millis("5s"), Ok(5000));
        assert_eq!(parse_seconds("24h"), Ok(86_400));
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "1960-01-01T00:00:00Z"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "-5s", "1500ms"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
