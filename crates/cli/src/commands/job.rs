use super::Remote;
use crate::args::{JobsArgs, JobsCommand};
use crate::failure::Failure;
use crate::mounting;
use crate::output::{self, Format, table, time};
use crate::screen::TerminalScreen;
use landfall_api_types::ApiError;
use landfall_api_types::resource::{Job, JobOutcome, JobState, StepState};
use landfall_demo::Screen as _;
use landfall_types::JobId;
use std::fmt::Write as _;

/// `landfall jobs`.
pub(super) async fn jobs(remote: &Remote, args: JobsArgs) -> Result<(), Failure> {
    match (args.command, args.id) {
        (Some(JobsCommand::Retry { id, wait }), _) => {
            let job = remote.client.retry_job(id).await;
            see_to_its_end(remote, job, wait.no_wait).await
        }
        (Some(JobsCommand::Cancel { id, wait }), _) => {
            let job = remote.client.cancel_job(id).await?;
            // A job that was given up is to end undone: that is no failure here.
            let job = if wait.no_wait { job } else { follow(remote, job.id).await? };
            output::print(remote.format, &job, text);
            Ok(())
        }
        (None, Some(id)) => {
            let job = remote.client.job(id).await;
            see_to_its_end(remote, job, args.wait.no_wait).await
        }
        (None, None) => {
            let jobs = remote.client.jobs_before(args.before, args.limit).await?;
            output::print(remote.format, &jobs, |jobs| list(jobs));
            Ok(())
        }
    }
}

/// Follows a job that was just asked for, prints what came of it, and fails when it did not
/// succeed.
pub(super) async fn see_to_its_end(
    remote: &Remote,
    job: Result<Job, ApiError>,
    no_wait: bool,
) -> Result<(), Failure> {
    let job = finished(remote, job?, no_wait).await?;
    output::print(remote.format, &job, text);
    Ok(())
}

/// A job at its end, or as it is where it is not to be waited for.
///
/// # Errors
/// When it ended otherwise than well.
pub(super) async fn finished(remote: &Remote, job: Job, no_wait: bool) -> Result<Job, Failure> {
    let job = if no_wait { job } else { follow(remote, job.id).await? };
    match job.state {
        JobState::Succeeded | JobState::Running => Ok(job),
        JobState::RolledBack | JobState::NeedsOperator => {
            if remote.format == Format::Json {
                output::print(remote.format, &job, text);
            }
            Err(Failure::Job(Box::new(job)))
        }
    }
}

async fn follow(remote: &Remote, id: JobId) -> Result<Job, ApiError> {
    let mut screen = TerminalScreen::new();
    let mut told = String::new();
    let job = remote.client.wait_job(id, |job| {
        let running = job.steps.iter().find(|step| step.state == StepState::Started);
        if let Some(step) = running.filter(|step| step.name != told) {
            told.clone_from(&step.name);
            screen.line(&format!("   {}: {}", job.kind, step.name));
        }
        if let Some(progress) = &job.progress {
            screen.progress(&job.kind, progress);
        }
    });
    let job = job.await;
    screen.progress_end();
    job
}

fn list(jobs: &[Job]) -> String {
    let rows = jobs.iter().map(|job| {
        let ended = job.finished.map_or_else(|| "–".to_owned(), time);
        let error = job.error.as_ref().map_or(String::new(), ToString::to_string);
        vec![
            job.id.to_string(),
            job.kind.clone(),
            job.machine_name.clone(),
            state(job.state).to_owned(),
            time(job.created),
            ended,
            error,
        ]
    });
    table(&["job", "kind", "machine", "state", "asked for", "ended", "error"], rows)
}

/// What a person sees of a job that has ended, or was only started.
pub(super) fn text(job: &Job) -> String {
    let mut text = format!("{} of {}: {}", job.kind, job.machine_name, state(job.state));
    if job.state == JobState::Running {
        let _ = write!(text, "; follow it with `landfall jobs {}`", job.id);
    }
    for step in &job.steps {
        let _ = write!(text, "\n  {:<10} {}", step_state(step.state), step.name);
        if !step.detail.is_empty() {
            let _ = write!(text, ": {}", step.detail);
        }
    }
    match &job.outcome {
        Some(JobOutcome::Branch(branch)) => {
            let _ = write!(text, "\n{}", mounting::how_to_mount(branch));
        }
        Some(JobOutcome::Released { epoch, lsn, disks }) => {
            let disks = disks.join(", ");
            let _ = write!(
                text,
                "\n{disks} are the machine's own again, at LSN {lsn} in epoch {}.\n\
                 Start the machine, look at it, then: landfall commit {}",
                epoch.number, job.machine_name
            );
        }
        None => {}
    }
    text
}

const fn state(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::RolledBack => "rolled back",
        JobState::NeedsOperator => "needs operator",
    }
}

const fn step_state(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Started => "started",
        StepState::Succeeded => "done",
        StepState::Skipped => "skipped",
        StepState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_failover_that_succeeded_says_how_to_mount_its_disks() {
        let text = text(&sample::failover());
        for part in [
            "failover of web-1: succeeded",
            "done       promote",
            "nbdfuse",
            "losetup",
            "journal_only",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_job_that_runs_says_how_to_follow_it() {
        let job = sample::job(JobState::Running);
        assert!(text(&job).contains(&format!("landfall jobs {}", job.id)));
    }

    #[test]
    fn the_list_has_a_line_per_job() {
        let list = list(&[sample::job(JobState::NeedsOperator), sample::failover()]);
        assert!(list.contains("needs operator") && list.contains("[node-failed]"), "{list}");
        assert!(list.contains("succeeded"), "{list}");
    }
}
