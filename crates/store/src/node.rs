use crate::error::during;
use crate::tx::{one, parsed, signed, text, text_option, time_option};
use crate::{StoreError, Tx};
use landfall_types::{NodeId, UnixNanos};
use sqlx::any::AnyRow;

/// A registered server or agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRow {
    /// Ours.
    pub id: NodeId,
    /// Unique.
    pub name: String,
    /// What it does.
    pub role: String,
    /// Names its public key: who enrols again is recognized by it.
    pub key: String,
    /// `host:port` of its replication listener.
    pub address: Option<String>,
    /// Version of Landfall there.
    pub version: String,
    /// When it last reported.
    pub last_report: Option<UnixNanos>,
    /// What it reported, JSON.
    pub report: Option<String>,
}

const COLUMNS: &str =
    "SELECT id, name, role, key, address, version, last_report, report FROM nodes";

fn row(row: &AnyRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        id: parsed(row, 0, "a node's ID")?,
        name: text(row, 1)?,
        role: text(row, 2)?,
        key: text(row, 3)?,
        address: text_option(row, 4)?,
        version: text(row, 5)?,
        last_report: time_option(row, 6)?,
        report: text_option(row, 7)?,
    })
}

impl Tx {
    /// Every node, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn nodes(&mut self) -> Result<Vec<NodeRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY name")))
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list nodes"))?;
        rows.iter().map(row).collect()
    }

    /// A node by its unique name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn node_named(&mut self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE name = $1")))
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find a node"))?;
        found.as_ref().map(row).transpose()
    }

    /// Adds a node; its name must be free.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_node(&mut self, node: &NodeRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO nodes (id, name, role, key, address, version) VALUES ($1,$2,$3,$4,$5,$6)",
        )
        .bind(node.id.to_string())
        .bind(node.name.clone())
        .bind(node.role.clone())
        .bind(node.key.clone())
        .bind(node.address.clone())
        .bind(node.version.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("add a node"))?;
        Ok(())
    }

    /// Keeps what a node last said.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for an unknown node.
    pub async fn update_node(&mut self, node: &NodeRow) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE nodes SET address = $2, version = $3, last_report = $4, report = $5
             WHERE id = $1",
        )
        .bind(node.id.to_string())
        .bind(node.address.clone())
        .bind(node.version.clone())
        .bind(node.last_report.map(|time| signed(time.0)))
        .bind(node.report.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("update a node"))?;
        one(done.rows_affected(), "node", node.id)
    }
}
