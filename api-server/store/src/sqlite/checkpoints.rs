//! Moves what was committed from the write-ahead log into the file itself.
//!
//! Left alone, SQLite does that within the commit that fills the log, and everyone who waits for the commit waits for the disk
//! too: a second where it is busy. Here a thread of its own does it, while reads and writes go on.

use std::{
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use rusqlite::Connection;

use super::thread;
use crate::StoreError;

/// What is committed within this time is moved together.
const INTERVAL: Duration = Duration::from_secs(1);

/// A log of so many pages (64 MiB) has to begin anew, for which writes wait until the last of it is moved. As long as nobody writes
/// for a moment now and then, it begins anew by itself before that.
const MOST_PAGES: i64 = 16_384;

/// See the module.
#[derive(Debug)]
pub(super) struct Checkpoints(SyncSender<()>);

impl Checkpoints {
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (sender, commits) = sync_channel(1);
        thread::spawn("sqlite-checkpoints", move || {
            let mut failing = false;
            for () in commits {
                let result = checkpoint(&connection);
                match &result {
                    Err(error) if !failing => tracing::warn!(
                        "can't move the write-ahead log into the database file, it grows until that succeeds; see whether the disk has room: {error}"
                    ),
                    Ok(()) if failing => tracing::info!("the write-ahead log is moved into the database file again"),
                    _ => {}
                }
                failing = result.is_err();
                std::thread::sleep(INTERVAL);
            }
        })?;
        Ok(Self(sender))
    }

    /// There is something to move.
    pub(super) fn committed(&self) {
        // Where one is under way or due, the next one takes this along.
        let _ = self.0.try_send(());
    }
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let pages = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>("log"));
    if pages("PRAGMA wal_checkpoint(PASSIVE)")? > MOST_PAGES {
        pages("PRAGMA wal_checkpoint(RESTART)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_moved_into_the_file() {
        let file = std::env::temp_dir().join(format!("checkpoints-{}.db", std::process::id()));
        let open = || {
            let connection = Connection::open(&file).unwrap();
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
            connection
        };
        let connection = open();
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        let before = std::fs::metadata(&file).unwrap().len();
        checkpoint(&open()).unwrap();
        assert!(std::fs::metadata(&file).unwrap().len() > before);
        drop(connection);
        std::fs::remove_file(&file).unwrap();
    }
}
