use crate::error::during;
use crate::tx::{one, signed, text, unsigned};
use crate::{StoreError, Tx};
use landfall_types::MachineId;

/// Who may write to a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorityRow {
    /// Of which machine.
    pub machine: MachineId,
    /// Rises with each change.
    pub generation: u64,
    /// The highest epoch number that was ever given (trap T-17).
    pub highest: u64,
    /// JSON.
    pub body: String,
}

impl Tx {
    /// Authority over a machine.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is none.
    pub async fn authority(&mut self, machine: MachineId) -> Result<AuthorityRow, StoreError> {
        let found =
            sqlx::query("SELECT generation, highest, body FROM authority WHERE machine = $1")
                .bind(machine.to_string())
                .fetch_optional(&mut *self.inner)
                .await
                .map_err(during("find authority"))?;
        let gone = StoreError::Conflict { what: "authority of machine", id: machine.to_string() };
        let row = found.ok_or(gone)?;
        Ok(AuthorityRow {
            machine,
            generation: unsigned(&row, 0)?,
            highest: unsigned(&row, 1)?,
            body: text(&row, 2)?,
        })
    }

    /// Adds the authority of a new machine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_authority(&mut self, row: &AuthorityRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO authority (machine, generation, highest, body) VALUES ($1,$2,$3,$4)",
        )
        .bind(row.machine.to_string())
        .bind(signed(row.generation))
        .bind(signed(row.highest))
        .bind(row.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("add authority"))?;
        Ok(())
    }

    /// Changes authority by compare-and-set, and raises the generation in `row` too. The highest
    /// epoch number can't be lowered, whatever the caller says: a number that was given once never
    /// comes again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it changed since it was read, or would lower the number.
    pub async fn update_authority(&mut self, row: &mut AuthorityRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE authority SET generation = $3, highest = $4, body = $5
             WHERE machine = $1 AND generation = $2 AND highest <= $4",
        )
        .bind(row.machine.to_string())
        .bind(signed(row.generation))
        .bind(signed(row.generation + 1))
        .bind(signed(row.highest))
        .bind(row.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("change authority"))?;
        one(done.rows_affected(), "authority of machine", row.machine)?;
        row.generation += 1;
        Ok(())
    }
}
