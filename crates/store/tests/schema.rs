//! The schema as it stands in a new database, against the golden file of its version
//! (docs/formats/database.md).

use landfall_store::{Store, StoreOptions};
use landfall_types::UnixNanos;
use sqlx::Row;
use sqlx::any::AnyPoolOptions;
use std::path::PathBuf;

/// A released version never changes: whoever changes the schema adds a version. `UPDATE=1` writes
/// the file anew.
#[tokio::test]
async fn a_new_database_has_the_schema_of_its_golden_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("landfall.db");
    let store = Store::open(&path, StoreOptions::default(), UnixNanos(1)).await.expect("open");
    store.close().await;
    let url = format!("sqlite://{}", path.display());
    let pool = AnyPoolOptions::new().max_connections(1).connect(&url).await.expect("open");
    let rows = sqlx::query(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL
         UNION ALL SELECT 'version ' || version FROM schema_version ORDER BY 1",
    );
    let rows = rows.fetch_all(&pool).await.expect("the schema");
    let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    let found: String = rows.iter().map(|row| line(row.get::<String, _>(0))).collect();
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema-1.sql");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &found).expect("write");
    }
    assert_eq!(found, std::fs::read_to_string(&golden).expect("the golden file"));
}
