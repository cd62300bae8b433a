use crate::error::during;
use crate::tx::{one, signed, text, unsigned};
use crate::{StoreError, Tx};
use sqlx::any::AnyRow;

/// A named policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRow {
    /// Unique.
    pub name: String,
    /// Rises with each change; what was read with another one is not written.
    pub generation: u64,
    /// JSON.
    pub body: String,
}

const COLUMNS: &str = "SELECT name, generation, body FROM policies";

fn row(row: &AnyRow) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow { name: text(row, 0)?, generation: unsigned(row, 1)?, body: text(row, 2)? })
}

impl Tx {
    /// Every policy, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY name")))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list policies"))?;
        rows.iter().map(row).collect()
    }

    /// A policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn policy(&mut self, name: &str) -> Result<Option<PolicyRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE name = $1")))
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find a policy"))?;
        found.as_ref().map(row).transpose()
    }

    /// Adds a policy; its name must be free.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_policy(&mut self, policy: &PolicyRow) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO policies (name, generation, body) VALUES ($1,$2,$3)")
            .bind(policy.name.clone())
            .bind(signed(policy.generation))
            .bind(policy.body.clone())
            .execute(&mut *self.inner)
            .await
            .map_err(during("add a policy"))?;
        Ok(())
    }

    /// Writes a policy if it has not changed since it was read.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has.
    pub async fn update_policy(&mut self, policy: &PolicyRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE policies SET generation = $3, body = $4 WHERE name = $1 AND generation = $2",
        )
        .bind(policy.name.clone())
        .bind(signed(policy.generation))
        .bind(signed(policy.generation + 1))
        .bind(policy.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("update a policy"))?;
        one(done.rows_affected(), "policy", &policy.name)
    }

    /// Removes a policy. Gone already: no error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_policy(&mut self, name: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM policies WHERE name = $1")
            .bind(name)
            .execute(&mut *self.inner)
            .await
            .map_err(during("remove a policy"))?;
        Ok(())
    }
}
