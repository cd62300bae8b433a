use crate::dice::Dice;
use crate::ledger::JournalMode;
use crate::machine::WorkloadPlan;
use crate::options::Scale;
use crate::report::{Check, Report};
use crate::roles::Launcher;
use crate::runs::Record;
use crate::screen::Screen;
use crate::wait;
use anyhow::{Context as _, Result, bail, ensure};
use landfall_api_client::Client;
use landfall_api_types::ApiError;
use landfall_api_types::resource::{Branch, Job, JobOutcome, JobState, Machine};
use landfall_model::MachineState;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the protected machine.
pub(super) const MACHINE: &str = "ledger";
/// How long a job may take.
const JOB_PATIENCE: Duration = Duration::from_secs(300);
/// How long a state may take to come.
const STATE_PATIENCE: Duration = Duration::from_secs(300);

/// What all steps share: the run, its seed, where it is told and what came of it.
pub(crate) struct Stage<'a> {
    pub(super) screen: &'a mut dyn Screen,
    pub(crate) report: Report,
    pub(super) step: u8,
    pub(super) record: Record,
    pub(super) scale: Scale,
    pub(super) seed: u64,
    pub(super) dice: Dice,
    pub(super) program: PathBuf,
    /// Name of the key that the replica is encrypted with.
    pub(super) key: Option<String>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        screen: &'a mut dyn Screen,
        report: Report,
        record: Record,
        scale: Scale,
        program: PathBuf,
    ) -> Self {
        let seed = report.seed;
        let dice = Dice::new(seed, "script");
        Self { screen, report, step: 0, record, scale, seed, dice, program, key: None }
    }

    /// Encrypts the replica at the recovery site with a key that this makes, in the run's
    /// directory.
    ///
    /// # Errors
    /// When the key can't be written.
    pub(crate) fn encrypt(&mut self) -> Result<()> {
        let path = self.record.dir.join("volume.key");
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&path)?;
        let mut random = std::fs::File::open("/dev/urandom")?.take(32);
        std::io::copy(&mut random, &mut file).context("make the key")?;
        self.key = Some(format!("file:{}", path.display()));
        Ok(())
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, step: u8, title: &str) {
        self.step = step;
        self.screen.line(&format!("{step}. {title}"));
    }

    /// Tells something.
    pub(super) fn say(&mut self, text: impl AsRef<str>) {
        self.screen.line(&format!("   {}", text.as_ref()));
    }

    /// Records a check; true when it passed.
    pub(crate) fn check(&mut self, what: &str, found: Result<String>) -> bool {
        let passed = found.is_ok();
        let found = found.unwrap_or_else(|error| format!("{error:#}"));
        let sign = if passed { "ok    " } else { "FAILED" };
        self.screen.line(&format!("   {sign} {what}: {found}"));
        self.report.checks.push(Check { step: self.step, what: what.to_owned(), passed, found });
        passed
    }

    /// Records that something was refused as it must be: with one of `codes`, a cause and a cure
    /// (promise P9).
    pub(super) fn refused<T>(&mut self, what: &str, answer: Result<T, ApiError>, codes: &[&str]) {
        let found = match answer {
            Ok(_) => Err(anyhow::anyhow!("it was accepted")),
            Err(error) if error.cause.is_empty() || error.cure.is_empty() => {
                Err(anyhow::anyhow!("[{}] without a cause or a cure", error.code))
            }
            Err(error) if codes.contains(&error.code.as_str()) => Ok(error.to_string()),
            Err(error) => Err(anyhow::anyhow!("refused, but for another reason: {error}")),
        };
        self.check(&format!("{what} is refused"), found);
    }

    /// Follows a job to its end.
    ///
    /// # Errors
    /// When it does not succeed, with what the job says.
    pub(super) async fn finish(
        &mut self,
        client: &Client,
        job: Result<Job, ApiError>,
    ) -> Result<Job> {
        let job = job.map_err(told)?;
        let kind = job.kind.clone();
        let screen = &mut *self.screen;
        let waited = client.wait_job(job.id, |job| {
            if let Some(progress) = &job.progress {
                screen.progress(&job.kind, progress);
            }
        });
        let job = tokio::time::timeout(JOB_PATIENCE, waited).await;
        self.screen.progress_end();
        let job = job.with_context(|| format!("the job {kind} takes too long"))?.map_err(told)?;
        if job.state == JobState::Succeeded {
            return Ok(job);
        }
        let steps =
            job.steps.iter().map(|step| format!("{} {:?} {}", step.name, step.state, step.detail));
        let steps = steps.collect::<Vec<_>>().join("; ");
        match job.error {
            Some(error) => Err(told(error).context(format!("job {kind} [{steps}]"))),
            None => bail!("the job {kind} ended as {:?} [{steps}]", job.state),
        }
    }

    /// Follows a job that makes a branch.
    ///
    /// # Errors
    /// As [`Stage::finish`]; when it made none.
    pub(super) async fn finish_branch(
        &mut self,
        client: &Client,
        job: Result<Job, ApiError>,
    ) -> Result<Branch> {
        let job = self.finish(client, job).await?;
        match job.outcome {
            Some(JobOutcome::Branch(branch)) => {
                ensure!(
                    branch.exports.len() == 2,
                    "the branch serves {} disks",
                    branch.exports.len()
                );
                Ok(branch)
            }
            other => bail!("the job {} made no branch: {other:?}", job.kind),
        }
    }

    /// Waits until the machine is in a state, showing the catch-up that runs.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub(super) async fn state(&mut self, client: &Client, wanted: MachineState) -> Result<Machine> {
        let what = format!("the machine is {wanted}");
        let screen = std::cell::RefCell::new(&mut *self.screen);
        let reached = wait::until(&what, STATE_PATIENCE, || async {
            let machine = client.machine(MACHINE).await.map_err(told)?;
            if let Some(catch_up) = machine.catch_up.as_ref().filter(|catch_up| !catch_up.finished)
            {
                screen.borrow_mut().progress("catch-up", &catch_up.progress);
            }
            Ok((machine.state == wanted).then_some(machine))
        });
        let reached = reached.await;
        self.screen.progress_end();
        reached
    }

    /// After a failure: the logs, where a person finds them when the run's directory is gone.
    pub(crate) fn keep_logs(&mut self) {
        let to = std::env::temp_dir().join(format!("landfall-demo-logs-{}", self.record.id));
        let args = [PathBuf::from("-r"), self.record.dir.join("logs"), to.clone()];
        match crate::shell::run("cp", &args) {
            Ok(_) => self.say(format!("the logs are kept in {}", to.display())),
            Err(error) => self.say(format!("the logs could not be kept: {error:#}")),
        }
    }

    /// How the roles of this run are started.
    pub(super) fn launcher(&self) -> Launcher {
        Launcher {
            program: self.program.clone(),
            run: self.record.id.clone(),
            logs: self.record.dir.join("logs"),
        }
    }

    /// How the workload of this run is started; `site` only names its files.
    pub(super) fn workload(&self, site: &str) -> WorkloadPlan {
        let mode = Dice::new(self.seed, "journal mode").between(0, 1);
        WorkloadPlan {
            program: self.program.clone(),
            run: self.record.id.clone(),
            seed: self.seed,
            journal_mode: if mode == 0 { JournalMode::Wal } else { JournalMode::Delete },
            log: self.record.dir.join(format!("logs/workload-{site}.log")),
            acknowledged: self.record.dir.join(format!("acknowledged-{site}")),
        }
    }
}

/// A refusal as an error of the demo, with its cure.
pub(super) fn told(error: ApiError) -> anyhow::Error {
    anyhow::anyhow!("{error} (cure: {})", error.cure)
}
