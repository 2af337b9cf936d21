//! Where users and tasks are kept.

use std::{path::PathBuf, time::Duration};

/// When a write to the SQLite file is on the disk, so that a crash of the machine can't lose it. A crash of the process loses nothing either
/// way, and neither kind of crash corrupts anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Soon: the machine's crash may lose the last writes.
    #[default]
    Normal,
    /// Before it is answered.
    Full,
}

/// A SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// It is made if it is not there.
    pub file: PathBuf,
    /// How durable its writes are.
    pub synchronous: Synchronous,
}

/// Where users and tasks are kept.
pub enum DatabaseConfig {
    /// A file.
    Sqlite(SqliteConfig),
    /// Servers.
    Postgres(Box<PostgresOptions>),
}

/// What a store on PostgreSQL works with. The users are shared between all shards: see [`task_api_domain::id`].
pub struct PostgresOptions {
    /// The first shard.
    pub first: ShardConfig,
    /// The others, in their order, which stays what it was at first.
    pub others: Vec<ShardConfig>,
    /// How long after its end a month's tasks can be found; for good without.
    pub retention: Option<Duration>,
}

/// Where one shard is.
pub struct ShardConfig {
    /// Takes writes, and reads that must be fresh.
    pub primary: tokio_postgres::Config,
    /// Take the other reads.
    pub replicas: Option<tokio_postgres::Config>,
}

/// What is to be heeded by every write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    /// Whether changes of tasks are told in the outbox; only PostgreSQL has one.
    pub events: bool,
    /// How much a user may have.
    pub quota: Quota,
}

/// How much a user may have; any number without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// How many tasks.
    pub tasks: Option<i64>,
    /// How many bytes of titles and descriptions, as UTF-8.
    pub bytes: Option<i64>,
}

impl Quota {
    /// Whether there is one.
    pub(crate) fn is_any(self) -> bool {
        self.tasks.is_some() || self.bytes.is_some()
    }
}
