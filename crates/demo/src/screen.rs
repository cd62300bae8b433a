use landfall_api_types::resource::Progress;

/// Where a run is told while it goes on; the command line has one for terminals and one for plain
/// lines.
pub trait Screen {
    /// A line that stays.
    fn line(&mut self, text: &str);
    /// How far something has come; called again and again for the same `what`.
    fn progress(&mut self, what: &str, progress: &Progress);
    /// What was in progress has ended.
    fn progress_end(&mut self);
}
