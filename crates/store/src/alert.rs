use crate::error::during;
use crate::tx::{one, signed, text, time, time_option, unsigned};
use crate::{StoreError, Tx};
use landfall_types::UnixNanos;
use sqlx::any::AnyRow;

/// An alert.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlertRow {
    /// Rises with each alert.
    pub id: u64,
    /// Stable code.
    pub code: String,
    /// What it is about: with the code the identity of what holds.
    pub subject: String,
    /// When it was raised.
    pub raised: UnixNanos,
    /// When it was cleared; none while it holds.
    pub cleared: Option<UnixNanos>,
    /// JSON.
    pub body: String,
}

const COLUMNS: &str = "SELECT id, code, subject, raised, cleared, body FROM alerts";

fn row(row: &AnyRow) -> Result<AlertRow, StoreError> {
    Ok(AlertRow {
        id: unsigned(row, 0)?,
        code: text(row, 1)?,
        subject: text(row, 2)?,
        raised: time(row, 3)?,
        cleared: time_option(row, 4)?,
        body: text(row, 5)?,
    })
}

impl Tx {
    /// Alerts that hold, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_alerts(&mut self) -> Result<Vec<AlertRow>, StoreError> {
        let order = "WHERE cleared IS NULL ORDER BY id";
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} {order}")))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list alerts"))?;
        rows.iter().map(row).collect()
    }

    /// Alerts of a lower ID than `before`, the newest first; with those that were cleared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn alerts(&mut self, before: u64, limit: u32) -> Result<Vec<AlertRow>, StoreError> {
        let order = "WHERE id < $1 ORDER BY id DESC LIMIT $2";
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} {order}")))
            .bind(signed(before))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list alerts"))?;
        rows.iter().map(row).collect()
    }

    /// Raises an alert; its ID is given here, the row's is not looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_alert(&mut self, alert: &AlertRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO alerts (id, code, subject, raised, body)
             SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4 FROM alerts",
        )
        .bind(alert.code.clone())
        .bind(alert.subject.clone())
        .bind(signed(alert.raised.0))
        .bind(alert.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("raise an alert"))?;
        Ok(())
    }

    /// Writes what an alert says now, and whether it was cleared.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an unknown one.
    pub async fn update_alert(&mut self, alert: &AlertRow) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE alerts SET cleared = $2, body = $3 WHERE id = $1")
            .bind(signed(alert.id))
            .bind(alert.cleared.map(|time| signed(time.0)))
            .bind(alert.body.clone())
            .execute(&mut *self.inner)
            .await
            .map_err(during("update an alert"))?;
        one(done.rows_affected(), "alert", alert.id)
    }

    /// Forgets alerts that were cleared before this time; gives how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_alerts(&mut self, before: UnixNanos) -> Result<u64, StoreError> {
        // The newest stays, so that no ID is given twice.
        let done = sqlx::query(
            "DELETE FROM alerts WHERE cleared < $1 AND id < (SELECT MAX(id) FROM alerts)",
        )
        .bind(signed(before.0))
        .execute(&mut *self.inner)
        .await
        .map_err(during("forget alerts"))?;
        Ok(done.rows_affected())
    }
}
