//! Values of options, as people write them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use landfall_types::UnixNanos;

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

#[cfg(test)]
mod tests {
    use super::*;

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
