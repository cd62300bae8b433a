use crate::failure::Failure;
use crate::output::{self, Format};
use crate::screen::TerminalScreen;
use landfall_demo::{DemoOptions, Report};

/// `landfall demo`.
pub(super) async fn demo(options: &DemoOptions, format: Format) -> Result<(), Failure> {
    let mut screen = TerminalScreen::new();
    let report = landfall_demo::run(options, &mut screen).await?;
    if !report.missing.is_empty() {
        return Err(Failure::Missing(report.missing));
    }
    if !options.clean_up || format == Format::Json {
        output::print(format, &report, Report::table);
    }
    if report.passed { Ok(()) } else { Err(Failure::Checks) }
}
