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
//! with the timeline in the uppermost bits of both: see migration 9.
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
mod replicas;
mod rows;
mod shards;
mod summaries;
mod writer;

use std::{sync::Arc, time::Duration};

use task_api_domain::mark::Mark;
use task_api_domain::user::User;
use task_api_resilience::{
    breaker::{Breaker, Call},
    weighted_cache::WeightedCache,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Config, Row};

use crate::{NewUser, ShardConfig, StoreError, StoreMetrics, Writes, Written, metrics::PRIMARY};
use migrate::ShardNumber;
pub use outbox::{Backlog, Event, Outbox, Relayed};
use pool::{Effect, Failure, Params, Pool};
use replicas::Replicas;
use rows::{USER, column, no_row, read_user};
pub(super) use shards::Shards;
pub use summaries::Summaries;
use writer::{Repeatable, Writer};

/// What a request waits for the primary at most, tries and pauses together: several times what a planned move takes, and less than clients wait
/// that give up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// What one try of a read waits, so that there is time for another on a new connection.
const READ_TRY: Duration = Duration::from_secs(2);
/// The pause between tries: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// How much memory may be taken by who is known to be counted, and one user.
const COUNTED_BYTES: usize = 4 << 20;
const COUNTED_USER: usize = 64;

/// The longest that upkeep may take which moves rows.
const LONG: Duration = Duration::from_mins(10);

/// How many connections read from the primary. A pooler gives each a server while a statement runs: more would only queue there.
const READERS: usize = 4;

/// How many months ahead there are partitions.
const MONTHS_AHEAD: i32 = 3;

/// The transaction of a write.
const MARK: &str = "write_mark() AS mark";

/// The greatest mark up to which a snapshot shows all writes.
const SEEN: &str =
    "((SELECT timeline FROM write_timeline) << 44 | pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)";

/// One database: see the module.
#[derive(Debug)]
struct Postgres {
    shard: ShardNumber,
    config: Config,
    primary: Pool,
    /// Of reads: a primary that takes no writes may well answer those.
    breaker: Breaker,
    replicas: Option<Replicas>,
    writer: Arc<Writer>,
    /// How long after their end months stay in the schema.
    retention: Option<Duration>,
    /// Of users with a quota, those that are known to be counted.
    counted: Option<WeightedCache<i64, ()>>,
    /// Names this process in the table `readiness`.
    instance: i64,
}

impl Postgres {
    fn new(
        config: &ShardConfig,
        shard: ShardNumber,
        retention: Option<Duration>,
        writes: Writes,
        metrics: &StoreMetrics,
    ) -> Self {
        let ShardConfig { primary, replicas } = config;
        let config = pool::tuned(primary);
        Self {
            shard,
            primary: Pool::new(config.clone(), READERS, metrics.pool(PRIMARY, shard.number)),
            breaker: Breaker::new("primary that is read from", metrics.breaker(PRIMARY, shard.number)),
            writer: Arc::new(Writer::new(config.clone(), writes, metrics.writer(shard.number))),
            retention,
            counted: writes.quota.is_any().then(|| WeightedCache::new(COUNTED_BYTES, |()| true)),
            replicas: replicas
                .as_ref()
                .map(|config| Replicas::new(pool::tuned(config), metrics.pool("replicas", shard.number))),
            config,
            // Two processes with one number would only see each other's rows.
            instance: getrandom::u64().unwrap_or_default().cast_signed(),
        }
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
        let made = self.take_time("SELECT make_task_partitions($1)", &[&MONTHS_AHEAD]).await?;
        let made: i32 = column(&made, 0)?;
        if made > 0 {
            tracing::info!(made, "made partitions of tasks");
        }
        if let Some(retention) = self.retention {
            let detached = self
                .upkeep("SELECT detach_task_partitions(make_interval(secs => $1))", &[&retention.as_secs_f64()])
                .await?;
            if detached > 0 {
                tracing::info!(detached, "took months out of tasks whose time is over; their tables are still there");
            }
        }
        // In pieces that take less than a request may.
        let sweep = "WITH swept AS (DELETE FROM idempotency_keys WHERE (user_id, key) IN (
                SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours' LIMIT 5000
            ) RETURNING 1) SELECT count(*)::integer FROM swept";
        while self.upkeep(sweep, &[]).await? > 0 {}
        Ok(())
    }

    /// Runs a statement that may run any number of times, and returns how much it found to do.
    /// Runs a statement that may take longer than a request's.
    async fn take_time(&self, sql: &str, params: Params<'_>) -> Result<Row, StoreError> {
        let run = async {
            let mut client = pool::connect(&self.config).await?;
            let transaction = client.transaction().await?;
            transaction.batch_execute(pool::UNLIMITED).await?;
            let row = transaction.query_one(sql, params).await?;
            transaction.commit().await?;
            Ok::<_, Failure>(row)
        };
        Ok(timeout(LONG, run).await.map_err(|_| Failure::timed_out("upkeep", LONG))??)
    }

    async fn upkeep(&self, sql: &str, params: Params<'_>) -> Result<i32, StoreError> {
        let rows = self.writer.write(Repeatable::Yes, sql, params).await?;
        column(rows.first().ok_or_else(no_row)?, 0)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let token = getrandom::u64().unwrap_or_default().cast_signed();
        let write = "WITH swept AS (DELETE FROM readiness WHERE written_at < now() - interval '1 hour')
            INSERT INTO readiness (instance, token, written_at) VALUES ($1, $2, now())
            ON CONFLICT (instance) DO UPDATE SET token = excluded.token, written_at = excluded.written_at";
        self.writer.write(Repeatable::Yes, write, &[&self.instance, &token]).await?;
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
        let rows = self.writer.write(Repeatable::No, &sql, params).await.map_err(|failure| {
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

    async fn set_password(&self, user_id: i64, from: &str, to: &str) -> Result<bool, StoreError> {
        // Done a second time, it finds what it has done.
        let sql = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash IN ($2, $3) RETURNING 1";
        Ok(!self.writer.write(Repeatable::Yes, sql, &[&user_id, &from, &to]).await?.is_empty())
    }

    async fn user(&self, id: i64, wrote: Option<Mark>) -> Result<Option<User>, StoreError> {
        let sql = |fresh: &str| format!("SELECT {USER} FROM users WHERE id = $1{fresh}");
        self.read(&sql, &[&id], wrote).await?.first().map(read_user).transpose()
    }

    async fn read_primary(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.try_primary(sql, params).await.map_err(|mut failure| {
            // A read changes nothing, whatever became of it.
            failure.effect = Effect::None;
            failure.into()
        })
    }

    async fn try_primary(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let mut tries = Tries::until(Instant::now() + PATIENCE, &self.breaker)?;
        loop {
            let deadline = tries.deadline.min(Instant::now() + READ_TRY);
            let result = self.primary.query(sql, params, deadline).await;
            let again = result.as_ref().is_err_and(|failure| failure.passing) && tries.pause().await;
            if !again {
                return tries.end(result);
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

/// The tries of one request. When the primary was away for as long as requests wait for it, the next are refused at once, until it is back.
struct Tries<'b> {
    deadline: Instant,
    pause: Duration,
    call: Call<'b>,
}

impl<'b> Tries<'b> {
    fn until(deadline: Instant, breaker: &'b Breaker) -> Result<Self, Failure> {
        let away = || Failure::unsent(format!("the database has been away for longer than {PATIENCE:?}"));
        let call = breaker.begin().ok_or_else(away)?;
        Ok(Self { deadline, pause: PAUSE.0, call })
    }

    /// What the last try came to.
    fn end(self, result: Result<Vec<Row>, Failure>) -> Result<Vec<Row>, Failure> {
        match &result {
            Err(failure) if failure.passing => {
                if !self.has_time() {
                    self.call.failed(failure);
                }
                // Else it was given up early, as it could not be repeated. That happens in every failover, which is waited for.
            }
            Ok(_) | Err(_) => self.call.succeeded(),
        }
        result
    }

    fn has_time(&self) -> bool {
        Instant::now() + self.pause < self.deadline
    }

    /// Waits for the next try; false when there is no time for one.
    async fn pause(&mut self) -> bool {
        if !self.has_time() {
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
