//! The console log of a guest.

use std::path::Path;

/// The last lines that are worth a look.
const LINES: usize = 60;

/// The end of the log in `path`; what can't be read says so.
pub(crate) fn tail(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), LINES),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines("a\r\nb\r\nc\r\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
        assert!(tail(Path::new("/no/such/log")).contains("/no/such/log"));
    }
}
