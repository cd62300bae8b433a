use crate::error::during;
use crate::tx::{parsed, signed, text, text_option, time};
use crate::{StoreError, Tx};
use landfall_types::{NodeId, OrderId, UnixNanos};
use sqlx::any::AnyRow;

/// An order to a node, and its result once there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderRow {
    /// Idempotency key towards the node.
    pub id: OrderId,
    /// Idempotency key of whoever gives it: the same key twice is the same order.
    pub idempotency: String,
    /// To whom.
    pub node: NodeId,
    /// When it was given.
    pub created: UnixNanos,
    /// JSON.
    pub body: String,
    /// JSON.
    pub result: Option<String>,
}

const COLUMNS: &str = "SELECT id, idempotency, node, created, body, result FROM orders";

fn row(row: &AnyRow) -> Result<OrderRow, StoreError> {
    Ok(OrderRow {
        id: parsed(row, 0, "an order's ID")?,
        idempotency: text(row, 1)?,
        node: parsed(row, 2, "a node's ID")?,
        created: time(row, 3)?,
        body: text(row, 4)?,
        result: text_option(row, 5)?,
    })
}

impl Tx {
    /// Gives an order, unless one of the same idempotency key was given before: then that one
    /// counts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_order(&mut self, order: &OrderRow) -> Result<OrderRow, StoreError> {
        if let Some(given) = self.order_for(&order.idempotency).await? {
            return Ok(given);
        }
        sqlx::query(
            "INSERT INTO orders (id, idempotency, node, created, body) VALUES ($1,$2,$3,$4,$5)",
        )
        .bind(order.id.to_string())
        .bind(order.idempotency.clone())
        .bind(order.node.to_string())
        .bind(signed(order.created.0))
        .bind(order.body.clone())
        .execute(&mut *self.inner)
        .await
        .map_err(during("give an order"))?;
        Ok(order.clone())
    }

    /// The order of an idempotency key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_for(&mut self, idempotency: &str) -> Result<Option<OrderRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE idempotency = $1")))
            .bind(idempotency)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find an order"))?;
        found.as_ref().map(row).transpose()
    }

    /// An order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order(&mut self, id: OrderId) -> Result<Option<OrderRow>, StoreError> {
        let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1")))
            .bind(id.to_string())
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(during("find an order"))?;
        found.as_ref().map(row).transpose()
    }

    /// A node's orders without result, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_orders(&mut self, node: NodeId) -> Result<Vec<OrderRow>, StoreError> {
        let order = "WHERE node = $1 AND result IS NULL ORDER BY created, id";
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} {order}")))
            .bind(node.to_string())
            .fetch_all(&mut *self.inner)
            .await
            .map_err(during("list orders"))?;
        rows.iter().map(row).collect()
    }

    /// Keeps the result of an order of this node. The first one counts; `false` when there was one,
    /// or no such order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn answer_order(
        &mut self,
        id: OrderId,
        node: NodeId,
        result: &str,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE orders SET result = $3 WHERE id = $1 AND node = $2 AND result IS NULL",
        )
        .bind(id.to_string())
        .bind(node.to_string())
        .bind(result)
        .execute(&mut *self.inner)
        .await
        .map_err(during("keep a result"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes back the orders without result whose idempotency key begins with `prefix`; gives how
    /// many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn withdraw_orders(&mut self, prefix: &str) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM orders WHERE result IS NULL AND substr(idempotency, 1, length($1)) = $1",
        )
        .bind(prefix)
        .execute(&mut *self.inner)
        .await
        .map_err(during("withdraw orders"))?;
        Ok(done.rows_affected())
    }

    /// Forgets answered orders that were given before this time; gives how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_orders(&mut self, before: UnixNanos) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM orders WHERE result IS NOT NULL AND created < $1")
            .bind(signed(before.0))
            .execute(&mut *self.inner)
            .await
            .map_err(during("forget orders"))?;
        Ok(done.rows_affected())
    }
}
