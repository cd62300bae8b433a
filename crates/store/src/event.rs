use crate::error::during;
use crate::tx::{signed, text, time};
use crate::{StoreError, Tx};
use landfall_types::{MachineId, UnixNanos};
use sqlx::any::AnyRow;

/// One line of a machine's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRow {
    /// When.
    pub time: UnixNanos,
    /// Who asked.
    pub by: String,
    /// What happened.
    pub event: String,
}

impl Tx {
    /// The last events of a machine, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events(
        &mut self,
        machine: MachineId,
        limit: u32,
    ) -> Result<Vec<EventRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT time, asked_by, event FROM events WHERE machine = $1
             ORDER BY position DESC LIMIT $2",
        )
        .bind(machine.to_string())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.inner)
        .await
        .map_err(during("list events"))?;
        let event = |row: &AnyRow| {
            Ok(EventRow { time: time(row, 0)?, by: text(row, 1)?, event: text(row, 2)? })
        };
        rows.iter().rev().map(event).collect()
    }

    /// Appends an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append_event(
        &mut self,
        machine: MachineId,
        event: &EventRow,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO events (machine, position, time, asked_by, event)
             SELECT $1, COALESCE(MAX(position), 0) + 1, $2, $3, $4 FROM events WHERE machine = $1",
        )
        .bind(machine.to_string())
        .bind(signed(event.time.0))
        .bind(event.by.clone())
        .bind(event.event.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("append an event"))?;
        Ok(())
    }
}
