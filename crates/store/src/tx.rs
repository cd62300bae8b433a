use crate::StoreError;
use crate::error::during;
use landfall_types::UnixNanos;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};
use std::str::FromStr;

/// The fencing number that an executor holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) fence: i64,
}

/// A transaction. Dropped without [`Tx::commit`], nothing of it has happened.
pub struct Tx {
    pub(crate) inner: Transaction<'static, Any>,
    #[cfg(feature = "testing")]
    tripwire: Option<std::sync::Arc<crate::Tripwire>>,
}

impl Tx {
    pub(crate) const fn new(inner: Transaction<'static, Any>) -> Self {
        Self {
            inner,
            #[cfg(feature = "testing")]
            tripwire: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_tripwire(&mut self, tripwire: Option<std::sync::Arc<crate::Tripwire>>) {
        self.tripwire = tripwire;
    }

    /// A write in the condition makes it hold until the commit: no other executor can take over in
    /// between.
    pub(crate) async fn check_lease(&mut self, lease: Lease) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE lease SET fence = $1 WHERE id = 1 AND fence = $1")
            .bind(lease.fence)
            .execute(&mut *self.inner)
            .await
            .map_err(during("check the lease"))?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::Fenced(u64::try_from(lease.fence).unwrap_or(0)))
        }
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing has happened then, or, when the connection broke, perhaps
    /// everything; read again before going on.
    pub async fn commit(self) -> Result<(), StoreError> {
        #[cfg(feature = "testing")]
        if let Some(tripwire) = &self.tripwire {
            tripwire.boundary().await;
        }
        self.inner.commit().await.map_err(during("commit"))?;
        #[cfg(feature = "testing")]
        if let Some(tripwire) = &self.tripwire {
            tripwire.boundary().await;
        }
        Ok(())
    }
}

/// One column, parsed.
pub(crate) fn parsed<T: FromStr>(
    row: &AnyRow,
    column: usize,
    what: &'static str,
) -> Result<T, StoreError> {
    let value: String = row.try_get(column).map_err(during("read a column"))?;
    value.parse().map_err(|_| StoreError::Damaged { what, value })
}

/// One column that may be empty, parsed.
pub(crate) fn parsed_option<T: FromStr>(
    row: &AnyRow,
    column: usize,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    let value: Option<String> = row.try_get(column).map_err(during("read a column"))?;
    let parse = |value: String| value.parse().map_err(|_| StoreError::Damaged { what, value });
    value.map(parse).transpose()
}

pub(crate) fn text(row: &AnyRow, column: usize) -> Result<String, StoreError> {
    row.try_get(column).map_err(during("read a column"))
}

pub(crate) fn text_option(row: &AnyRow, column: usize) -> Result<Option<String>, StoreError> {
    row.try_get(column).map_err(during("read a column"))
}

pub(crate) fn unsigned(row: &AnyRow, column: usize) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(during("read a column"))?;
    let wrong = |_| StoreError::Damaged { what: "a count", value: value.to_string() };
    u64::try_from(value).map_err(wrong)
}

pub(crate) fn time(row: &AnyRow, column: usize) -> Result<UnixNanos, StoreError> {
    unsigned(row, column).map(UnixNanos)
}

pub(crate) fn time_option(row: &AnyRow, column: usize) -> Result<Option<UnixNanos>, StoreError> {
    let value: Option<i64> = row.try_get(column).map_err(during("read a column"))?;
    Ok(value.map(|value| UnixNanos(u64::try_from(value).unwrap_or(0))))
}

/// For binding: numbers of the database are signed.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Exactly one row must have been written.
pub(crate) fn one(affected: u64, what: &'static str, id: impl ToString) -> Result<(), StoreError> {
    if affected == 1 { Ok(()) } else { Err(StoreError::Conflict { what, id: id.to_string() }) }
}
