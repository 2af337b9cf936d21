//! The schema's history, applied once and in order, however many instances start at once.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config};

use super::{pool, pool::Failure};
use crate::StoreError;

/// How long an instance waits for another that migrates, and may itself take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Append only: what was applied anywhere never changes.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "accounts and tasks", include_str!("migrations/0001_accounts_and_tasks.sql")),
    (2, "partitions", include_str!("migrations/0002_partitions.sql")),
    (3, "changes", include_str!("migrations/0003_changes.sql")),
    (4, "summaries", include_str!("migrations/0004_summaries.sql")),
    (5, "shards", include_str!("migrations/0005_shards.sql")),
    (6, "import", include_str!("migrations/0006_import.sql")),
    (7, "upkeep", include_str!("migrations/0007_upkeep.sql")),
    (8, "creations together", include_str!("migrations/0008_creations_together.sql")),
    (9, "timelines", include_str!("migrations/0009_timelines.sql")),
    (10, "usage", include_str!("migrations/0010_usage.sql")),
    (11, "statement timeout", include_str!("migrations/0011_statement_timeout.sql")),
    (12, "tasks before 2020", include_str!("migrations/0012_tasks_before_2020.sql")),
];

/// Which shard a database is to be, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardNumber {
    pub(super) number: usize,
    pub(super) of: usize,
}

/// Applies what was not applied yet, and makes the database the shard that it is to be. All of it is one transaction that holds a lock of its own length, so this goes through a pooler, and an
/// instance that dies on the way leaves nothing behind.
pub(super) async fn migrate(config: &Config, shard: ShardNumber) -> Result<(), StoreError> {
    let mut client = pool::connect(config).await?;
    let is =
        timeout(TIMEOUT, apply(&mut client, shard)).await.map_err(|_| Failure::timed_out("migrating", TIMEOUT))??;
    if is == shard {
        return Ok(());
    }
    let name = config.get_dbname().unwrap_or_default();
    Err(StoreError::Broken(format!(
        "the database {name:?} is shard {} of {}, and DATABASE_URL says shard {} of {} (counted from 0); list every shard, in the \
         order in which they were first listed",
        is.number, is.of, shard.number, shard.of
    )))
}

async fn apply(client: &mut Client, shard: ShardNumber) -> Result<ShardNumber, Failure> {
    let transaction = client.transaction().await?;
    // The lock ends with the transaction.
    let begin = "SELECT pg_advisory_xact_lock(7234116, 1);
        CREATE TABLE IF NOT EXISTS schema_migrations (
            version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(pool::UNLIMITED).await?;
    transaction.batch_execute(begin).await?;
    let applied = transaction.query("SELECT version FROM schema_migrations", &[]).await?;
    let applied: Vec<i32> = applied.iter().filter_map(|row| row.try_get(0).ok()).collect();
    for (version, name, sql) in MIGRATIONS {
        if applied.contains(version) {
            continue;
        }
        transaction.batch_execute(sql).await?;
        let record = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)";
        transaction.execute(record, &[version, name]).await?;
        tracing::info!(version, name, "migrated the schema");
    }
    let [number, of] = [shard.number, shard.of].map(|number| i32::try_from(number).unwrap_or(i32::MAX));
    let is = transaction.query_one("SELECT number, shards FROM become_shard($1, $2)", &[&number, &of]).await?;
    let [number, of] = [is.try_get(0)?, is.try_get(1)?].map(|number: i32| usize::try_from(number).unwrap_or_default());
    transaction.commit().await?;
    Ok(ShardNumber { number, of })
}
