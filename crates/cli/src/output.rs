//! What commands print on standard output: a table for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use landfall_types::UnixNanos;
use serde::Serialize;
use std::io::Write as _;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: what the API answered, one JSON value.
    Json,
}

/// Prints a result: as JSON what it is, for people what `text` makes of it.
pub(crate) fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) {
    match format {
        Format::Json => line(&to_json(value)),
        Format::Table => line(&text(value)),
    }
}

/// A line on standard output; a reader that went away (`| head`) is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("resources have string keys and finite depth")
}

/// A table without a frame, as wide as its content.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_NO_BORDERS);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    // Without the lines between rows, which no preset without a frame leaves out.
    let is_row = |line: &String| !line.chars().all(|sign| "╌┼".contains(sign));
    let lines = table.lines().map(|line| line.trim_end().to_owned()).filter(is_row);
    lines.collect::<Vec<_>>().join("\n")
}

/// Lines of *name: value*.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts.iter().map(|(name, value)| format!("{name:<width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Wall time in UTC, to the millisecond.
pub(crate) fn time(time: UnixNanos) -> String {
    let nanos = i128::from(time.0);
    match Timestamp::from_nanosecond(nanos - nanos % 1_000_000) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{} ns", time.0),
    }
}

/// Seconds as people read them.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_durations_are_readable() {
        assert_eq!(time(UnixNanos(1_800_000_000_123_456_789)), "2027-01-15T08:00:00.123Z");
        assert_eq!(time(UnixNanos(u64::MAX)), "2554-07-21T23:34:33.709Z");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(seconds(0.25), "0.2 s");
        assert_eq!(seconds(90.0), "1.5 min");
        assert_eq!(seconds(7200.0), "2.0 h");
        assert_eq!(seconds(864_000.0), "10.0 d");
    }

    #[test]
    fn a_table_has_a_line_per_row_under_its_header() {
        let text = table(&["a", "b"], [1, 2, 3].map(|n: u8| vec![n.to_string(), String::new()]));
        assert_eq!(text.lines().count(), 5, "{text}");
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
