//! Users and tasks, in PostgreSQL or in SQLite: one interface, two real implementations, one suite of tests.

mod change;
mod import;
mod metrics;
mod options;
mod postgres;
mod sqlite;

use std::{collections::HashMap, time::Instant};

pub use change::{Idempotency, IdempotencyKey, Operation, Outcome};
pub use import::{ImportedAccount, ImportedTask};
use jiff::Timestamp;
pub use metrics::StoreMetrics;
pub use options::{DatabaseConfig, PostgresOptions, Quota, ShardConfig, SqliteConfig, Synchronous, Writes};
pub use postgres::{Backlog, Event, Outbox, Relayed, Summaries};
use task_api_domain::{
    id::TaskId,
    mark::Mark,
    position::Position,
    search::SearchQuery,
    summary::Summary,
    task::{Filter, Task},
    user::{Email, User},
};
use task_api_resilience::memory::Full;
use task_api_telemetry::trace::{span, traced};
use thiserror::Error;

/// Why a store did not do what it should.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another account has this e-mail.
    #[error("an account with this e-mail exists")]
    EmailTaken,
    /// The idempotency key belongs to another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// The user has as much as they may, or would. Nothing was changed.
    #[error("the user has as much as they may")]
    QuotaExceeded,
    /// More waits than it will get to in time, or than there is memory for. Nothing was changed.
    #[error("too much waits for the database")]
    Overloaded,
    /// The user has as much under way as they may. Nothing was changed.
    #[error("the user has as much under way as they may")]
    TooMuchAtOnce,
    /// It does not answer, and nothing was changed.
    #[error("{0}")]
    Unavailable(String),
    /// It went away in the middle of a write that must not be repeated blindly.
    #[error("the connection broke during a write: {0}")]
    Unknown(String),
    /// It answers what it should not.
    #[error("{0}")]
    Broken(String),
}

impl From<Full> for StoreError {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::Overloaded,
            Full::User => Self::TooMuchAtOnce,
        }
    }
}

impl StoreError {
    /// Whether it is for the store to answer for, and not for what was asked of it.
    fn is_failure(&self) -> bool {
        !matches!(self, Self::EmailTaken | Self::KeyReused | Self::QuotaExceeded | Self::TooMuchAtOnce)
    }
}

/// The result of a write.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// What was written.
    pub value: T,
    /// By which write; none where nothing had to be changed.
    pub mark: Option<Mark>,
    /// It was written when the same request came before: see [`Idempotency`].
    pub replayed: bool,
}

/// An account to be made.
#[derive(Debug)]
pub struct NewUser {
    /// The e-mail to log in with.
    pub email: Email,
    /// What the user wants to be called.
    pub name: Option<String>,
    /// In the PHC format, as Argon2 writes it.
    pub password_hash: String,
}

/// A piece of a user's tasks, newest first.
#[derive(Clone, Copy, Debug)]
pub struct ListRequest {
    /// Which of them.
    pub filter: Filter,
    /// Only those after this place.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: i64,
}

/// A piece of what a search finds, newest first: unlike an order by relevance, it goes on where it ended whatever is written meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// What to find.
    pub query: SearchQuery,
    /// Only those after this place.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: i64,
}

/// A session that outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// Whose it is.
    pub user_id: i64,
    /// Of its token's secret.
    pub hash: [u8; 32],
    /// When it is over.
    pub ends_at: Timestamp,
}

/// How large a piece may be.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// How many tasks at most.
    pub tasks: usize,
    /// How many bytes of titles and descriptions are in it, before its last task.
    pub bytes: usize,
}

/// How many bytes of titles and descriptions are in a piece of a list, before its last task.
pub const PIECE_BYTES: usize = 1 << 20;

/// A piece of a user's tasks.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Newest first: as many as were asked for, or as come to [`PIECE_BYTES`].
    pub tasks: Vec<Task>,
    /// Whether there are more.
    pub more: bool,
}

/// A user's tasks at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Newest first, if these are all.
    pub piece: Piece,
    /// It shows every write of the user's up to this one.
    pub version: Mark,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    metrics: StoreMetrics,
}

#[derive(Debug)]
enum Kind {
    Postgres(Box<postgres::Shards>),
    Sqlite(sqlite::Sqlite),
}

/// Calls the same method of whichever store there is, and notes how that went.
macro_rules! on {
    ($store:expr, $operation:expr, $inner:ident => $call:expr) => {
        $store.observed($operation, async {
            match &$store.kind {
                Kind::Postgres($inner) => $call.await,
                Kind::Sqlite($inner) => $call.await,
            }
        })
    };
}

impl Store {
    /// The store that the configuration names.
    pub fn open(database: &DatabaseConfig, writes: Writes) -> Result<Self, StoreError> {
        match database {
            DatabaseConfig::Sqlite(sqlite) => Self::sqlite(sqlite, writes),
            DatabaseConfig::Postgres(options) => Ok(Self::postgres(options, writes)),
        }
    }

    /// What `/metrics` shows of it.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    async fn observed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let span = span!(
            "store",
            otel.name = format!("db.{operation}"),
            otel.kind = "client",
            db.system.name = if self.is_embedded() { "sqlite" } else { "postgresql" },
            db.operation.name = operation,
        );
        let began = Instant::now();
        let result = traced(span, work).await;
        self.metrics.operation(operation, !result.as_ref().is_err_and(StoreError::is_failure), began.elapsed());
        result
    }

    /// Whether it lives in this process alone.
    pub fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Sqlite(_))
    }

    /// How many databases the users are shared between.
    pub fn shards(&self) -> usize {
        match &self.kind {
            Kind::Postgres(shards) => shards.count(),
            Kind::Sqlite(_) => 1,
        }
    }

    /// The outboxes of the shards, in their order, each on a connection of its own; none on SQLite.
    pub fn outboxes(&self) -> Vec<Outbox> {
        match &self.kind {
            Kind::Postgres(shards) => shards.outboxes(),
            Kind::Sqlite(_) => Vec::new(),
        }
    }

    /// The summaries of the shards, in their order, each on a connection of its own; none on SQLite, which counts when it is asked.
    pub fn summaries(&self) -> Vec<Summaries> {
        match &self.kind {
            Kind::Postgres(shards) => shards.summaries(),
            Kind::Sqlite(_) => Vec::new(),
        }
    }

    /// A store in a file, which is made if it is not there.
    pub fn sqlite(config: &SqliteConfig, writes: Writes) -> Result<Self, StoreError> {
        let kind = sqlite::Sqlite::open(config, writes.quota).map(Kind::Sqlite)?;
        Ok(Self { kind, metrics: StoreMetrics::default() })
    }

    /// A store on servers, which are connected to when they are first needed.
    pub fn postgres(options: &PostgresOptions, writes: Writes) -> Self {
        let metrics = StoreMetrics::default();
        Self { kind: Kind::Postgres(Box::new(postgres::Shards::new(options, writes, &metrics))), metrics }
    }

    /// Brings the schema up to date. Any number of instances may do this at once.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        on!(self, "prepare", store => store.prepare()).await
    }

    /// Makes partitions ahead of time, and forgets idempotency keys whose day is over.
    pub async fn keep_up(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Postgres(shards) => shards.keep_up().await,
            Kind::Sqlite(sqlite) => sqlite.keep_up().await,
        }
    }

    /// Keeps a session in the file. A database that others share keeps none: their store has them.
    pub async fn keep_session(&self, session: KeptSession) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Postgres(_) => Ok(()),
            Kind::Sqlite(sqlite) => sqlite.keep_session(session).await,
        }
    }

    /// Keeps it no longer.
    pub async fn end_session(&self, user_id: i64, hash: [u8; 32]) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Postgres(_) => Ok(()),
            Kind::Sqlite(sqlite) => sqlite.end_session(user_id, hash).await,
        }
    }

    /// Keeps none of a user's.
    pub async fn end_sessions(&self, user_id: i64) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Postgres(_) => Ok(()),
            Kind::Sqlite(sqlite) => sqlite.end_sessions(user_id).await,
        }
    }

    /// The sessions that are kept and not over.
    pub async fn kept_sessions(&self) -> Result<Vec<KeptSession>, StoreError> {
        match &self.kind {
            Kind::Postgres(_) => Ok(Vec::new()),
            Kind::Sqlite(sqlite) => sqlite.kept_sessions().await,
        }
    }

    /// Writes a row and reads it back.
    pub async fn check(&self) -> Result<(), StoreError> {
        on!(self, "check", store => store.check()).await
    }

    /// Makes an account.
    pub async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        on!(self, "create_user", store => store.create_user(user)).await
    }

    /// The account with this e-mail (see [`Email::key`]), and its password's hash.
    pub async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        on!(self, "credentials", store => store.credentials(email_key)).await
    }

    /// Replaces the hash of an account's password; false if it is another one by now.
    pub async fn set_password(&self, user_id: i64, from: &str, to: &str) -> Result<bool, StoreError> {
        on!(self, "set_password", store => store.set_password(user_id, from, to)).await
    }

    /// An account.
    pub async fn user(&self, id: i64, wrote: Option<Mark>) -> Result<Option<User>, StoreError> {
        on!(self, "user", store => store.user(id, wrote)).await
    }

    /// All changes of a request, in order, each on its own, and in one transaction: outcomes as many as operations.
    ///
    /// With an [`Idempotency`] whose key the user sent before, nothing is changed and the outcomes of that time are told again, however many
    /// such requests come at once. Keys are kept for 24 hours.
    pub async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        on!(self, change::name(&operations), store => store.apply(user_id, operations, idempotency)).await
    }

    /// Some of a user's tasks.
    pub async fn list_tasks(&self, user_id: i64, list: &ListRequest, wrote: Option<Mark>) -> Result<Piece, StoreError> {
        on!(self, "list", store => store.list_tasks(user_id, list, wrote)).await
    }

    /// A task, if it is this user's.
    pub async fn task(&self, user_id: i64, id: TaskId, wrote: Option<Mark>) -> Result<Option<Task>, StoreError> {
        on!(self, "get", store => store.task(user_id, id, wrote)).await
    }

    /// Some of what a search finds among a user's tasks.
    pub async fn search_tasks(
        &self,
        user_id: i64,
        search: &SearchRequest,
        wrote: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        on!(self, "search", store => store.search_tasks(user_id, search, wrote)).await
    }

    /// How many tasks a user has. On PostgreSQL it is as old as the last refresh of its materialized view (plan section 6.1).
    pub async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        on!(self, "summary", store => store.summary(user_id)).await
    }

    /// The newest of a user's tasks at one moment, as many as `bound` allows.
    pub async fn load_view(&self, user_id: i64, bound: Bound, wrote: Option<Mark>) -> Result<View, StoreError> {
        on!(self, "load_view", store => store.load_view(user_id, bound, wrote)).await
    }

    /// The accounts that were imported from `source`: their ids here by what they are known by there.
    pub async fn imported_accounts(&self, source: &str) -> Result<HashMap<i64, i64>, StoreError> {
        on!(self, "imported_accounts", store => store.imported_accounts(source)).await
    }

    /// Makes accounts of `source` that are not here yet, and returns the ids of all in their order; none where another account has the
    /// e-mail. No two have the same one.
    pub async fn import_accounts(
        &self,
        source: &str,
        accounts: Vec<ImportedAccount>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        on!(self, "import_accounts", store => store.import_accounts(source, accounts)).await
    }

    /// The last row of `source` whose task is here, with those of all rows before it; [`i64::MIN`] if there is none.
    pub async fn imported_up_to(&self, source: &str) -> Result<i64, StoreError> {
        on!(self, "imported_up_to", store => store.imported_up_to(source)).await
    }

    /// Makes the tasks of `source` up to a row that are not here yet. Those up to [`Store::imported_up_to`] need not be among `tasks`, which
    /// are in the order of their rows.
    pub async fn import_tasks(&self, source: &str, tasks: Vec<ImportedTask>, up_to: i64) -> Result<(), StoreError> {
        on!(self, "import_tasks", store => store.import_tasks(source, tasks, up_to)).await
    }
}
