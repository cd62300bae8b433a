use crate::host;
use crate::options::DemoOptions;
use crate::preflight::{self, mib};
use crate::report::Report;
use crate::runs::{PATIENCE, Record, Runs, sweep};
use crate::screen::Screen;
use crate::script::{self, AtEnd, Stage};
use crate::wait;
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Plays the demo; what came of it is in the report, whatever came.
///
/// # Errors
/// When it could not even begin or clean up; see [`Report::missing`] for what this machine lacks.
pub async fn run(options: &DemoOptions, screen: &mut dyn Screen) -> Result<Report> {
    let started = Instant::now();
    let mut report = Report::new(options.seed.unwrap_or_else(fresh_seed));
    let runs = Runs::of_this_machine();
    let scale = options.scale();
    let space = if options.clean_up { 0 } else { scale.space_bytes() };
    report.missing = preflight::missing(&options.dir, space)?;
    if !report.missing.is_empty() {
        return Ok(report);
    }
    remove_leftovers(&runs, options.clean_up, screen)?;
    if options.clean_up {
        report.passed = true;
        return Ok(report);
    }
    screen.line(&format!(
        "seed {}; needs up to {} in {}, and about {} min",
        report.seed,
        mib(space),
        options.dir.display(),
        scale.minutes
    ));
    let program = std::env::current_exe().context("find the path of this program")?;
    let record = runs.begin(&options.dir)?;
    let mut report = play(options, report, &record, program, screen).await?;
    if options.keep && report.checks.iter().all(|check| check.passed) {
        runs.write(&Record { kept: true, ..record })?;
    } else {
        end(&runs, &record, &mut report, screen)?;
    }
    report.passed = report.checks.iter().all(|check| check.passed);
    report.total_s = started.elapsed().as_secs_f64();
    Ok(report)
}

async fn play(
    options: &DemoOptions,
    report: Report,
    record: &Record,
    program: PathBuf,
    screen: &mut dyn Screen,
) -> Result<Report> {
    wait::end_on_signals()?;
    let mut stage = Stage::new(screen, report, record.clone(), options.scale(), program);
    if options.encrypt {
        stage.encrypt()?;
    }
    let at_end = if options.keep { AtEnd::KeepRunning } else { AtEnd::StopAll };
    let played = script::play(&mut stage, at_end).await;
    if let Err(error) = played {
        stage.check("the cycle is carried out", Err(error));
        stage.keep_logs();
    }
    Ok(stage.report)
}

/// Removes everything of this run, and looks whether it is gone.
fn end(runs: &Runs, record: &Record, report: &mut Report, screen: &mut dyn Screen) -> Result<()> {
    wait::clean_up_now();
    sweep(runs, record, PATIENCE)?;
    let processes = host::processes_of(&record.id)?.len();
    let mounts = host::mounts_under(&record.dir)?.len();
    let loops = host::loops_under(&record.dir)?.len();
    let dirs = usize::from(record.dir.exists());
    let left =
        format!("{processes} processes, {mounts} mounts, {loops} loop devices, {dirs} directories");
    let passed = processes + mounts + loops + dirs == 0;
    let what = "nothing is left behind".to_owned();
    screen.line(&format!("   {} {what}: {left}", if passed { "ok    " } else { "FAILED" }));
    report.checks.push(crate::report::Check { step: 0, what, passed, found: left });
    Ok(())
}

/// Runs that were killed are removed; one whose demo still runs is left alone, and one that was
/// kept on purpose stays until it is asked for.
fn remove_leftovers(runs: &Runs, kept_too: bool, screen: &mut dyn Screen) -> Result<()> {
    for record in runs.list()? {
        let dir = record.dir.display();
        if record.owner.is_alive() {
            screen.line(&format!("another demo runs in {dir}"));
        } else if record.kept && !kept_too {
            screen.line(&format!(
                "a kept run is in {dir}; remove it with `landfall demo --clean-up`"
            ));
        } else {
            let swept = sweep(runs, &record, PATIENCE)?;
            screen.line(&format!(
                "removed an earlier run in {dir}: {} processes, {} mounts, {} loop devices",
                swept.processes,
                swept.mounts,
                swept.loops.len()
            ));
        }
    }
    Ok(())
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)) % 1_000_000
}
