use crate::error::during;
use crate::tx::{one, parsed, signed, text, time, time_option, unsigned};
use crate::{StoreError, Tx};
use landfall_types::{JobId, MachineId, UnixNanos};
use sqlx::any::AnyRow;

/// A job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRow {
    /// Ours.
    pub id: JobId,
    /// Of which machine.
    pub machine: MachineId,
    /// What kind.
    pub kind: String,
    /// Where it stands.
    pub state: String,
    /// When it was asked for.
    pub created: UnixNanos,
    /// When it ended.
    pub finished: Option<UnixNanos>,
    /// JSON.
    pub body: String,
}

/// One step of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepRow {
    /// Of which job.
    pub job: JobId,
    /// 0 …
    pub position: u64,
    /// Stable within the kind of job.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// What it found or did.
    pub detail: String,
}

const COLUMNS: &str = "SELECT id, machine, kind, state, created, finished, body FROM jobs";

fn row(row: &AnyRow) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: parsed(row, 0, "a job's ID")?,
        machine: parsed(row, 1, "a machine's ID")?,
        kind: text(row, 2)?,
        state: text(row, 3)?,
        created: time(row, 4)?,
        finished: time_option(row, 5)?,
        body: text(row, 6)?,
    })
}

impl Tx {
    /// The newest jobs that are older than `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs(
        &mut self,
        before: Option<&JobRow>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StoreError> {
        let order = "WHERE created < $1 OR (created = $1 AND id < $2)
             ORDER BY created DESC, id DESC LIMIT $3";
        let created = before.map_or(i64::MAX, |job| signed(job.created.0));
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} {order}")))
            .bind(created)
            .bind(before.map(|job| job.id.to_string()).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list jobs"))?;
        rows.iter().map(row).collect()
    }

    /// Jobs in a state, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_in_state(&mut self, state: &str) -> Result<Vec<JobRow>, StoreError> {
        let order = "WHERE state = $1 ORDER BY created, id";
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} {order}")))
            .bind(state)
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list jobs"))?;
        rows.iter().map(row).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&mut self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1")))
            .bind(id.to_string())
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find a job"))?;
        found.as_ref().map(row).transpose()
    }

    /// The steps of a job, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn steps(&mut self, job: JobId) -> Result<Vec<StepRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT position, name, state, detail FROM steps WHERE job = $1 ORDER BY position",
        )
        .bind(job.to_string())
        .fetch_all(&mut *self.inner)
        .await
        .map_err(during("list steps"))?;
        let step = |row: &AnyRow| {
            Ok(StepRow {
                job,
                position: unsigned(row, 0)?,
                name: text(row, 1)?,
                state: text(row, 2)?,
                detail: text(row, 3)?,
            })
        };
        rows.iter().map(step).collect()
    }

    /// Adds a job with its steps.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_job(&mut self, job: &JobRow, steps: &[StepRow]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO jobs (id, machine, kind, state, created, finished, body)
             VALUES ($1,$2,$3,$4,$5,$6,$7)",
        )
        .bind(job.id.to_string())
        .bind(job.machine.to_string())
        .bind(job.kind.clone())
        .bind(job.state.clone())
        .bind(signed(job.created.0))
        .bind(job.finished.map(|time| signed(time.0)))
        .bind(job.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("add a job"))?;
        for step in steps {
            sqlx::query(
                "INSERT INTO steps (job, position, name, state, detail) VALUES ($1,$2,$3,$4,$5)",
            )
            .bind(step.job.to_string())
            .bind(signed(step.position))
            .bind(step.name.clone())
            .bind(step.state.clone())
            .bind(step.detail.clone())
            .execute(&mut *self.inner)
            .await
            .map_err(during("add a step"))?;
        }
        Ok(())
    }

    /// Writes a job. Only its executor does, under the lease, or a request in a transaction that
    /// has read it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an unknown one.
    pub async fn update_job(&mut self, job: &JobRow) -> Result<(), StoreError> {
        let done =
            sqlx::query("UPDATE jobs SET state = $2, finished = $3, body = $4 WHERE id = $1")
                .bind(job.id.to_string())
                .bind(job.state.clone())
                .bind(job.finished.map(|time| signed(time.0)))
                .bind(job.body.clone())
                .execute(&mut *self.inner)
                .await
                .map_err(during("update a job"))?;
        one(done.rows_affected(), "job", job.id)
    }

    /// Writes a step.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an unknown one.
    pub async fn update_step(&mut self, step: &StepRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE steps SET state = $3, detail = $4 WHERE job = $1 AND position = $2",
        )
        .bind(step.job.to_string())
        .bind(signed(step.position))
        .bind(step.state.clone())
        .bind(step.detail.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("update a step"))?;
        one(done.rows_affected(), "step", format!("{} of job {}", step.position, step.job))
    }
}
