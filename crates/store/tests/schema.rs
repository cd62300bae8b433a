//! The schema as it stands in a new database, against the golden file of its version
//! (docs/formats/database.md).

use landfall_store::{Store, StoreOptions};
use landfall_types::UnixNanos;
use sqlx::AnyPool;
use sqlx::Row;
use sqlx::any::AnyPoolOptions;
use std::path::{Path, PathBuf};

const NEWEST: &str = "schema-2.sql";

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

async fn pool(path: &Path) -> AnyPool {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", path.display());
    AnyPoolOptions::new().max_connections(1).connect(&url).await.expect("open")
}

/// Opens the database as the server does, then says its schema.
async fn schema_after_opening(path: &Path) -> String {
    let store = Store::open(path, StoreOptions::default(), UnixNanos(1)).await.expect("open");
    store.close().await;
    let rows = sqlx::query(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL
         UNION ALL SELECT 'version ' || version FROM schema_version ORDER BY 1",
    );
    let rows = rows.fetch_all(&pool(path).await).await.expect("the schema");
    let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    rows.iter().map(|row| line(row.get::<String, _>(0))).collect()
}

/// A released version never changes: whoever changes the schema adds a version. `UPDATE=1` writes
/// the file anew.
#[tokio::test]
async fn a_new_database_has_the_schema_of_its_golden_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let found = schema_after_opening(&dir.path().join("landfall.db")).await;
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(golden(NEWEST), &found).expect("write");
    }
    assert_eq!(found, std::fs::read_to_string(golden(NEWEST)).expect("the golden file"));
}

/// A database of each earlier version becomes one of the newest.
#[tokio::test]
async fn an_earlier_database_is_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("landfall.db");
    let earlier = std::fs::read_to_string(golden("schema-1.sql")).expect("the golden file");
    let made = pool(&path).await;
    for line in earlier.lines() {
        // The file is sorted: an index stands before its table.
        if line.starts_with("CREATE TABLE") {
            let statement = sqlx::AssertSqlSafe(line.to_owned());
            sqlx::query(statement).execute(&made).await.expect("made");
        }
    }
    for line in earlier.lines().filter(|line| line.starts_with("CREATE INDEX")) {
        sqlx::query(sqlx::AssertSqlSafe(line.to_owned())).execute(&made).await.expect("made");
    }
    for statement in [
        "INSERT INTO schema_version (version) VALUES (1)",
        "INSERT INTO lease (id, owner, fence, heartbeat) VALUES (1, '', 0, 0)",
    ] {
        sqlx::query(statement).execute(&made).await.expect("made");
    }
    made.close().await;
    let newest = std::fs::read_to_string(golden(NEWEST)).expect("the golden file");
    assert_eq!(schema_after_opening(&path).await, newest);
}
