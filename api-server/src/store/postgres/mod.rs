//! The store on PostgreSQL, usually through PgBouncer in transaction mode: no statement relies on what another set in its session.
//!
//! # Reading one's own writes
//!
//! Reads go to the replicas, which lag behind the primary. So every write returns the id of its transaction, a [`Mark`], which the session
//! store keeps for its user where every instance finds it, and a read brings its user's mark along:
//!
//! ```sql
//! SELECT … WHERE … AND pg_snapshot_xmin(pg_current_snapshot()) > $mark
//! ```
//!
//! All transactions below a snapshot's `xmin` are over, and the mark's was committed, so on a replica where the condition holds the read sees
//! the write; where it does not hold, no row is returned, and the primary is asked. An empty answer to a read that brings no mark is
//! an answer.
//!
//! The usual mark is a position in the WAL, compared with `pg_last_wal_replay_lsn()`. That function tells what was replayed when it is
//! called, which is after the statement's snapshot was taken, so the two have to be asked in two statements on one server, a
//! transaction of four messages through the pooler; and the position of a commit is only known after it, by another statement. The
//! transaction's id is exact in one statement each way, and holds on a replica that was promoted as well. What it costs: a transaction that
//! stays open on the primary for long keeps `xmin` back, and readers who wrote since go to the primary until it is over.

mod changes;
mod import;
mod migrate;
mod outbox;
mod own;
mod pool;
mod reads;
mod rows;
mod shards;
mod summaries;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_postgres::{Config, Row};

use super::{Mark, NewUser, ShardConfig, StoreError, Written};
use crate::auth::model::User;
use migrate::ShardNumber;
pub use outbox::{Backlog, Event, Outbox, Relayed};
use pool::{Effect, Failure, Params, Pool};
use rows::{USER, column, no_row, read_user};
pub(super) use shards::Shards;
pub use summaries::Summaries;

/// What a request waits for the primary at most, tries and pauses together.
const PATIENCE: Duration = Duration::from_secs(5);
/// What one try of a read waits, so that there is time for another on a new connection.
const READ_TRY: Duration = Duration::from_secs(2);
/// What a read waits for a replica before it asks the primary.
const REPLICA_PATIENCE: Duration = Duration::from_secs(1);
/// How long replicas that failed are left alone. After that one read tries them, and the others follow if it succeeds.
const REPLICA_REST: Duration = Duration::from_secs(2);
/// The pause between tries: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// How many months ahead there are partitions.
const MONTHS_AHEAD: i32 = 3;

/// The transaction of a write.
const MARK: &str = "pg_current_xact_id()::text::bigint AS mark";

/// Whether a failed write may be tried again when nobody knows what it did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeatable {
    Yes,
    No,
}

/// One database: see the module.
#[derive(Debug)]
struct Postgres {
    shard: ShardNumber,
    config: Config,
    primary: Pool,
    replicas: Option<Replicas>,
    /// Whether changes of tasks are written to the outbox.
    events: bool,
    /// Names this process in the table `readiness`.
    instance: i64,
}

#[derive(Debug)]
struct Replicas {
    pool: Pool,
    began: Instant,
    /// Milliseconds after `began` until which they are left alone.
    rest_until: AtomicU64,
}

impl Postgres {
    fn new(config: &ShardConfig, shard: ShardNumber, events: bool) -> Self {
        let ShardConfig { primary, replicas } = config;
        let config = pool::tuned(primary);
        let replicas = replicas.as_ref().map(|config| Replicas {
            pool: Pool::new(pool::tuned(config)),
            began: Instant::now(),
            rest_until: AtomicU64::new(0),
        });
        // Two processes with one number would only see each other's rows.
        let instance = getrandom::u64().unwrap_or_default().cast_signed();
        Self { shard, primary: Pool::new(config.clone()), config, replicas, events, instance }
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(self.config.clone())
    }

    fn summaries(&self) -> Summaries {
        Summaries::new(self.config.clone())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        migrate::migrate(&self.config, self.shard).await?;
        self.keep_up().await
    }

    async fn keep_up(&self) -> Result<(), StoreError> {
        let rows = self.write(Repeatable::Yes, "SELECT make_task_partitions($1)", &[&MONTHS_AHEAD]).await?;
        let made: i32 = column(rows.first().ok_or_else(no_row)?, 0)?;
        if made > 0 {
            tracing::info!(made, "made partitions of tasks");
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        let token = getrandom::u64().unwrap_or_default().cast_signed();
        let write = "WITH swept AS (DELETE FROM readiness WHERE written_at < now() - interval '1 hour')
            INSERT INTO readiness (instance, token, written_at) VALUES ($1, $2, now())
            ON CONFLICT (instance) DO UPDATE SET token = excluded.token, written_at = excluded.written_at";
        self.write(Repeatable::Yes, write, &[&self.instance, &token]).await?;
        let read = "SELECT 1 FROM readiness WHERE instance = $1 AND token = $2";
        let rows = self.read_primary(read, &[&self.instance, &token]).await?;
        rows.first()
            .map(|_| ())
            .ok_or_else(|| StoreError::Unavailable("a row that was just written is not there".to_owned()))
    }

    async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        let sql = format!(
            "INSERT INTO users (email, email_key, name, password_hash) VALUES ($1, $2, $3, $4) RETURNING {USER}, {MARK}"
        );
        let params: Params<'_> = &[&user.email.as_str(), &user.email.key(), &user.name, &user.password_hash];
        let rows = self.write(Repeatable::No, &sql, params).await.map_err(|failure| {
            if failure.constraint.as_deref() == Some("users_email_key") {
                StoreError::EmailTaken
            } else {
                failure.into()
            }
        })?;
        written(rows.first().ok_or_else(no_row)?, read_user)
    }

    /// Asks the primary: nobody is known yet, so neither is what they wrote.
    async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        let sql = format!("SELECT {USER}, password_hash FROM users WHERE email_key = $1");
        let rows = self.read_primary(&sql, &[&email_key]).await?;
        rows.first().map(|row| Ok((read_user(row)?, column(row, "password_hash")?))).transpose()
    }

    async fn user(&self, id: i64, wrote: Option<Mark>) -> Result<Option<User>, StoreError> {
        let sql = |fresh: &str| format!("SELECT {USER} FROM users WHERE id = $1{fresh}");
        self.read(&sql, &[&id], wrote).await?.first().map(read_user).transpose()
    }

    /// Runs a write on the primary. During a failover it is tried again for as long as a client would wait, if it did nothing or may do it
    /// twice.
    async fn write(&self, repeatable: Repeatable, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let mut tries = Tries::new();
        loop {
            let failure = match self.primary.query(sql, params, tries.deadline).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            let harmless = failure.effect == Effect::None || repeatable == Repeatable::Yes;
            // An id that is taken is a sequence that came round within a second: the next one is free.
            let id_taken = failure.constraint.as_deref().is_some_and(|name| name.starts_with("tasks_"));
            if !harmless || !(failure.passing || id_taken) || !tries.pause().await {
                return Err(failure);
            }
        }
    }

    async fn read_primary(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let mut tries = Tries::new();
        loop {
            let deadline = tries.deadline.min(Instant::now() + READ_TRY);
            match self.primary.query(sql, params, deadline).await {
                Ok(rows) => return Ok(rows),
                Err(failure) if failure.passing && tries.pause().await => {}
                // A read changes nothing, whatever became of it.
                Err(mut failure) => {
                    failure.effect = Effect::None;
                    return Err(failure.into());
                }
            }
        }
    }

    /// Runs a read on a replica if that shows what the user wrote, else on the primary. `sql` makes the statement, with a last condition
    /// that is empty for the primary.
    async fn read(
        &self,
        sql: &(dyn Fn(&str) -> String + Sync),
        params: Params<'_>,
        wrote: Option<Mark>,
    ) -> Result<Vec<Row>, StoreError> {
        if let Some(replicas) = &self.replicas
            && let Some(rows) = replicas.read(sql, params, wrote).await
        {
            return Ok(rows);
        }
        self.read_primary(&sql(""), params).await
    }
}

impl Replicas {
    /// The rows, unless the replicas are away or lag behind `wrote`.
    async fn read(
        &self,
        sql: &(dyn Fn(&str) -> String + Sync),
        params: Params<'_>,
        wrote: Option<Mark>,
    ) -> Option<Vec<Row>> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rest_until = self.rest_until.load(Ordering::Relaxed);
        if now < rest_until {
            return None;
        }
        let rest_ms = u64::try_from(REPLICA_REST.as_millis()).unwrap_or(u64::MAX);
        // The first read after a rest goes alone: until it is back, the replicas rest for the others.
        let alone = rest_until > 0;
        if alone
            && self
                .rest_until
                .compare_exchange(rest_until, now.saturating_add(rest_ms), Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        let deadline = Instant::now() + REPLICA_PATIENCE;
        let result = match wrote {
            None => self.pool.query(&sql(""), params, deadline).await,
            Some(Mark(mark)) => {
                let params: Vec<_> = params.iter().copied().chain([&mark as _]).collect();
                let fresh = format!(" AND pg_snapshot_xmin(pg_current_snapshot())::text::bigint > ${}", params.len());
                self.pool.query(&sql(&fresh), &params, deadline).await
            }
        };
        match result {
            Ok(rows) => {
                if alone {
                    self.rest_until.store(0, Ordering::Relaxed);
                    tracing::info!("the replicas answer again");
                }
                // No row, and the replica may be behind: only the primary can tell.
                (wrote.is_none() || !rows.is_empty()).then_some(rows)
            }
            Err(failure) => {
                tracing::warn!("reads go to the primary for {REPLICA_REST:?}, the replicas fail: {failure}");
                self.rest_until.store(now.saturating_add(rest_ms), Ordering::Relaxed);
                None
            }
        }
    }
}

/// The tries of one request.
struct Tries {
    deadline: Instant,
    pause: Duration,
}

impl Tries {
    fn new() -> Self {
        Self { deadline: Instant::now() + PATIENCE, pause: PAUSE.0 }
    }

    /// Waits for the next try; false when there is no time for one.
    async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause >= self.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
        true
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let cause = failure.to_string();
        match failure {
            Failure { passing: false, .. } => Self::Broken(cause),
            Failure { effect: Effect::None, .. } => Self::Unavailable(cause),
            Failure { effect: Effect::Unknown, .. } => Self::Unknown(cause),
        }
    }
}

fn written<T>(row: &Row, read: impl FnOnce(&Row) -> Result<T, StoreError>) -> Result<Written<T>, StoreError> {
    Ok(Written { value: read(row)?, mark: Some(Mark(column(row, "mark")?)), replayed: false })
}
