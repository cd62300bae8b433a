//! Progress on standard error: a bar with rate and ETA on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use landfall_api_types::resource::Progress;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time between two plain lines about the same thing.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Where progress is shown.
#[derive(Debug)]
pub(crate) struct TerminalScreen {
    bar: Option<ProgressBar>,
    is_terminal: bool,
    told: Option<(String, Instant)>,
}

impl TerminalScreen {
    /// On standard error.
    pub(crate) fn new() -> Self {
        Self { bar: None, is_terminal: std::io::stderr().is_terminal(), told: None }
    }

    fn show_bar(&mut self, what: &str, progress: &Progress) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("   {prefix} {bar:30} {msg}");
            let bar = ProgressBar::new(progress.total_bytes);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_prefix(what.to_owned());
        bar.set_length(progress.total_bytes.max(1));
        bar.set_position(progress.done_bytes.min(progress.total_bytes));
        bar.set_message(describe(progress));
    }

    fn show_line(&mut self, what: &str, progress: &Progress) {
        let due = match &self.told {
            Some((told, at)) => told != what || at.elapsed() >= PLAIN_INTERVAL,
            None => true,
        };
        if due {
            self.told = Some((what.to_owned(), Instant::now()));
            write_line(&format!("   {what}: {}", describe(progress)));
        }
    }
}

impl landfall_demo::Screen for TerminalScreen {
    fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => write_line(text),
        }
    }

    fn progress(&mut self, what: &str, progress: &Progress) {
        if self.is_terminal {
            self.show_bar(what, progress);
        } else {
            self.show_line(what, progress);
        }
    }

    fn progress_end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.told = None;
    }
}

/// Standard error may be closed: that is no reason to fail.
pub(crate) fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Phase, how far, rate, time left, as far as they are known.
pub(crate) fn describe(progress: &Progress) -> String {
    use crate::output::{bytes, seconds};
    let mut parts = Vec::new();
    if !progress.phase.is_empty() {
        parts.push(progress.phase.clone());
    }
    if progress.total_bytes > 0 {
        let percent = 100.0 * progress.done_bytes as f64 / progress.total_bytes as f64;
        let (done, total) = (bytes(progress.done_bytes), bytes(progress.total_bytes));
        parts.push(format!("{done} of {total} ({percent:.0} %)"));
    }
    if progress.rate_bytes_per_s > 0.0 {
        parts.push(format!("{}/s", bytes(progress.rate_bytes_per_s as u64)));
    }
    if let Some(eta) = progress.eta_s {
        parts.push(format!("{} left", seconds(eta)));
    }
    if progress.sent_bytes > 0 {
        parts.push(format!("{} sent", bytes(progress.sent_bytes)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_rate_and_time_left_where_they_are_known() {
        let progress = Progress {
            phase: "copying".into(),
            done_bytes: 1 << 30,
            total_bytes: 4 << 30,
            sent_bytes: 5 << 20,
            rate_bytes_per_s: 104_857_600.0,
            eta_s: Some(30.72),
        };
        assert_eq!(
            describe(&progress),
            "copying, 1.00 GiB of 4.00 GiB (25 %), 100.00 MiB/s, 30.7 s left, 5.00 MiB sent"
        );
        assert_eq!(describe(&Progress::default()), "");
    }
}
