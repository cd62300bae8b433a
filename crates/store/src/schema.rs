//! Schema and migrations: numbered steps, each applied once, in one transaction with the new
//! number.
//!
//! Types are those that SQLite and PostgreSQL share: TEXT and BIGINT. IDs are UUIDs as text, times
//! are nanoseconds since 1970, bodies are JSON.

use crate::StoreError;
use crate::error::during;
use sqlx::{Any, Row, Transaction};

/// Every version's statements; the position is the version before them. Released ones never change.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE lease (id BIGINT PRIMARY KEY CHECK (id = 1), owner TEXT NOT NULL,
        fence BIGINT NOT NULL, heartbeat BIGINT NOT NULL)",
    "INSERT INTO lease (id, owner, fence, heartbeat) VALUES (1, '', 0, 0)",
    "CREATE TABLE nodes (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
        key TEXT NOT NULL, address TEXT, version TEXT NOT NULL, last_report BIGINT, report TEXT)",
    "CREATE TABLE machines (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
        generation BIGINT NOT NULL, active_job TEXT, body TEXT NOT NULL)",
    "CREATE TABLE authority (machine TEXT PRIMARY KEY REFERENCES machines(id),
        generation BIGINT NOT NULL, highest BIGINT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, machine TEXT NOT NULL REFERENCES machines(id),
        kind TEXT NOT NULL, state TEXT NOT NULL, created BIGINT NOT NULL, finished BIGINT,
        body TEXT NOT NULL)",
    "CREATE INDEX jobs_by_state ON jobs (state)",
    "CREATE TABLE steps (job TEXT NOT NULL REFERENCES jobs(id), position BIGINT NOT NULL,
        name TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (job, position))",
    "CREATE TABLE orders (id TEXT PRIMARY KEY, idempotency TEXT NOT NULL UNIQUE,
        node TEXT NOT NULL REFERENCES nodes(id), created BIGINT NOT NULL, body TEXT NOT NULL,
        result TEXT)",
    "CREATE INDEX orders_by_node ON orders (node, created)",
    "CREATE TABLE events (machine TEXT NOT NULL REFERENCES machines(id), position BIGINT NOT NULL,
        time BIGINT NOT NULL, asked_by TEXT NOT NULL, event TEXT NOT NULL,
        PRIMARY KEY (machine, position))",
], &[
    "CREATE TABLE policies (name TEXT PRIMARY KEY, generation BIGINT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE alerts (id BIGINT PRIMARY KEY, code TEXT NOT NULL, subject TEXT NOT NULL,
        raised BIGINT NOT NULL, cleared BIGINT, body TEXT NOT NULL)",
    "CREATE INDEX alerts_by_cleared ON alerts (cleared)",
]];

/// Brings the database to the newest version.
pub(crate) async fn migrate(tx: &mut Transaction<'static, Any>) -> Result<(), StoreError> {
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut **tx)
        .await
        .map_err(during("make the table of the schema's version"))?;
    let row = sqlx::query("SELECT version FROM schema_version")
        .fetch_optional(&mut **tx)
        .await
        .map_err(during("read the schema's version"))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = match row {
        Some(row) => row.try_get(0).map_err(during("read the schema's version"))?,
        None => {
            sqlx::query("INSERT INTO schema_version (version) VALUES (0)")
                .execute(&mut **tx)
                .await
                .map_err(during("write the schema's version"))?;
            0_i64
        }
    };
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let applied = usize::try_from(found).unwrap_or(0);
    for statement in MIGRATIONS.iter().skip(applied).copied().flatten().copied() {
        sqlx::query(statement).execute(&mut **tx).await.map_err(during("change the schema"))?;
    }
    sqlx::query("UPDATE schema_version SET version = $1")
        .bind(known)
        .execute(&mut **tx)
        .await
        .map_err(during("write the schema's version"))?;
    Ok(())
}
