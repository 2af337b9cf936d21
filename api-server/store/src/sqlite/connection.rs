//! How the file is opened, and its schema.

use std::time::Duration;

use rusqlite::Connection;

use crate::{SqliteConfig, Synchronous};

/// Append only: what was applied anywhere never changes. `user_version` counts them.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_accounts_and_tasks.sql"),
    include_str!("migrations/0002_search.sql"),
    include_str!("migrations/0003_import.sql"),
    include_str!("migrations/0004_sessions.sql"),
    include_str!("migrations/0005_usage.sql"),
];

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

/// More than there are statements.
const STATEMENTS: usize = 64;

pub(super) fn open(config: &SqliteConfig) -> rusqlite::Result<Connection> {
    let connection = Connection::open(&config.file)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match config.synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // See `checkpoints`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// Applies what was not applied yet, within the transaction that is open.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let applied: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, sql) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > applied) {
        connection.execute_batch(sql)?;
        connection.pragma_update(None, "user_version", version)?;
    }
    Ok(())
}

/// Runs a statement that returns no row.
pub(super) fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
