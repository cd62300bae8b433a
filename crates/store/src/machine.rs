use crate::error::during;
use crate::tx::{one, parsed, parsed_option, signed, text, unsigned};
use crate::{StoreError, Tx};
use landfall_model::MachineState;
use landfall_types::{JobId, MachineId};
use sqlx::any::AnyRow;

/// A protected machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineRow {
    /// Ours.
    pub id: MachineId,
    /// Unique.
    pub name: String,
    /// Where in the cycle.
    pub state: MachineState,
    /// Rises with each change; what was read with another one is not written.
    pub generation: u64,
    /// The job that is under way: one at a time.
    pub active_job: Option<JobId>,
    /// JSON.
    pub body: String,
}

const COLUMNS: &str = "SELECT id, name, state, generation, active_job, body FROM machines";

fn row(row: &AnyRow) -> Result<MachineRow, StoreError> {
    let state = text(row, 2)?;
    let known = MachineState::ALL.into_iter().find(|known| known.name() == state);
    Ok(MachineRow {
        id: parsed(row, 0, "a machine's ID")?,
        name: text(row, 1)?,
        state: known.ok_or(StoreError::Damaged { what: "a machine's state", value: state })?,
        generation: unsigned(row, 3)?,
        active_job: parsed_option(row, 4, "a job's ID")?,
        body: text(row, 5)?,
    })
}

impl Tx {
    /// Every machine, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn machines(&mut self) -> Result<Vec<MachineRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY name")))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list machines"))?;
        rows.iter().map(row).collect()
    }

    /// A machine by its unique name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn machine_named(&mut self, name: &str) -> Result<Option<MachineRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE name = $1")))
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find a machine"))?;
        found.as_ref().map(row).transpose()
    }

    /// A machine.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an unknown one.
    pub async fn machine(&mut self, id: MachineId) -> Result<MachineRow, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1")))
            .bind(id.to_string())
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find a machine"))?;
        let gone = StoreError::Conflict { what: "machine", id: id.to_string() };
        row(&found.ok_or(gone)?)
    }

    /// Adds a machine; its name must be free.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_machine(&mut self, machine: &MachineRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO machines (id, name, state, generation, active_job, body)
             VALUES ($1,$2,$3,$4,$5,$6)",
        )
        .bind(machine.id.to_string())
        .bind(machine.name.clone())
        .bind(machine.state.name())
        .bind(signed(machine.generation))
        .bind(machine.active_job.map(|job| job.to_string()))
        .bind(machine.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("add a machine"))?;
        Ok(())
    }

    /// Writes a machine if it has not changed since it was read, and raises its generation in
    /// `machine` too.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has.
    pub async fn update_machine(&mut self, machine: &mut MachineRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE machines SET state = $3, generation = $4, active_job = $5, body = $6
             WHERE id = $1 AND generation = $2",
        )
        .bind(machine.id.to_string())
        .bind(signed(machine.generation))
        .bind(machine.state.name())
        .bind(signed(machine.generation + 1))
        .bind(machine.active_job.map(|job| job.to_string()))
        .bind(machine.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("update a machine"))?;
        one(done.rows_affected(), "machine", machine.id)?;
        machine.generation += 1;
        Ok(())
    }
}
