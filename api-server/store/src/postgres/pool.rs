//! A few connections that many requests share: each sends its statement without waiting for the answers to those before, and the server
//! works them off in order.
//!
//! Only single statements travel here, so a pooler in transaction mode may send each to another server.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex as SyncMutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use task_api_resilience::background;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, Config, Error, NoTls, Row, Statement,
    error::{DbError, SqlState},
    types::ToSql,
};

use crate::metrics::{Counted, PoolMetrics};

/// A pooler that runs lets a client in at once. Of several behind one name, the next try may reach another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A statement without an answer for so long casts doubt on all connections that have not answered since it was sent: they may lead to the same
/// pooler, and its node may be gone without a word. Whoever needs one of them makes a new one.
const DOUBT: Duration = Duration::from_secs(1);

/// How long a statement whose connection broke waits for what became of those before it.
const HEARSAY: Duration = Duration::from_millis(50);

/// Lets the statements of a transaction take longer than others may (see migration 11).
pub(super) const UNLIMITED: &str = "SET LOCAL statement_timeout = 0";

/// What goes with a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What is known about a statement that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It changed nothing.
    None,
    /// Nobody knows.
    Unknown,
}

/// Why a statement failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What it may have done.
    pub(super) effect: Effect,
    /// Whether it may well succeed later.
    pub(super) passing: bool,
    /// The unique constraint that it would have broken.
    pub(super) constraint: Option<String>,
    cause: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Failure {
    /// Nothing was sent.
    pub(super) fn unsent(cause: String) -> Self {
        Self { effect: Effect::None, passing: true, constraint: None, cause }
    }

    pub(super) fn timed_out(what: &str, after: Duration) -> Self {
        Self {
            effect: Effect::Unknown,
            passing: true,
            constraint: None,
            cause: format!("{what}: no answer within {after:?}"),
        }
    }
}

impl From<Error> for Failure {
    /// The answer to a statement that was sent.
    fn from(error: Error) -> Self {
        let cause = describe(&error);
        let Some(answer) = error.as_db_error() else {
            // A value that can't be encoded was not sent, one that can't be decoded was; neither gets better. Everything else is the
            // connection breaking.
            let passing = error.is_closed()
                || std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
            return Self { effect: Effect::Unknown, passing, constraint: None, cause };
        };
        let code = answer.code();
        Self {
            effect: if is_connection_class(code) && !is_refusal(answer) { Effect::Unknown } else { Effect::None },
            passing: is_passing(answer),
            constraint: answer.constraint().filter(|_| *code == SqlState::UNIQUE_VIOLATION).map(str::to_owned),
            cause,
        }
    }
}

/// Class 08: a pooler says so when the server went away amid a statement, but also when none could be had.
fn is_connection_class(code: &SqlState) -> bool {
    code.code().starts_with("08")
}

/// What PgBouncer says when it had no server to give the statement to. It has one code for everything.
fn is_refusal(answer: &DbError) -> bool {
    let refusals = [
        "server_login_retry",
        "server login failed",
        "server down",
        "query_wait_timeout",
        // It had nothing to do for the client, and told it to leave just when it got the statement.
        "client_idle_timeout",
        "cannot connect",
        "no more connections",
        // It ends, and had the statement wait.
        "server shutting down",
    ];
    refusals.iter().any(|refusal| answer.message().contains(refusal))
}

/// Whether the server's answer speaks of a state that passes: a failover, a restart, a shortage, a conflict.
fn is_passing(answer: &DbError) -> bool {
    let code = answer.code();
    is_connection_class(code)
        || is_rerouting(answer)
        || [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            // It took too long.
            SqlState::QUERY_CANCELED,
            SqlState::DISK_FULL,
            SqlState::OUT_OF_MEMORY,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            // The pooler or the server forgot a prepared statement, or a migration changed what it returns.
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::FEATURE_NOT_SUPPORTED,
        ]
        .contains(code)
}

/// Whether a row's month got its partition while the row was on its way to the default one. A check that a table declares has a name.
fn is_rerouting(answer: &DbError) -> bool {
    *answer.code() == SqlState::CHECK_VIOLATION && answer.constraint().is_none()
}

/// An error with its causes; tokio-postgres keeps the server's words in the cause.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A connection of one's own.
pub(super) async fn connect(config: &Config) -> Result<Client, Failure> {
    open(config, watch::Sender::new(false)).await
}

/// A connection that says when the pooler ends it without carrying out what is on its way.
async fn open(config: &Config, refused: watch::Sender<bool>) -> Result<Client, Failure> {
    let config = config.clone();
    let connecting = background::spawn(async move { timeout(CONNECT_TIMEOUT, config.connect(NoTls)).await });
    let connected = connecting.await.map_err(|error| Failure::unsent(error.to_string()))?;
    let connected = connected.map_err(|_| Failure::unsent(format!("can't connect within {CONNECT_TIMEOUT:?}")))?;
    let (client, connection) =
        connected.map_err(|error| Failure { passing: true, ..Failure::unsent(describe(&error)) })?;
    background::spawn(async move {
        if let Err(error) = connection.await {
            // What nobody's statement is answered with was said to one that had sent none yet.
            if error.as_db_error().is_some_and(is_refusal) {
                refused.send_replace(true);
            }
            tracing::debug!("a database connection ended: {}", describe(&error));
        }
    });
    Ok(client)
}

/// Sets what every connection needs: a peer that vanished without a word is noticed.
pub(super) fn tuned(config: &Config) -> Config {
    let mut config = config.clone();
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(Duration::from_secs(10))
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(2);
    if config.get_application_name().is_none() {
        config.application_name("task-api");
    }
    config
}

/// The connections to one database.
pub(super) struct Pool {
    config: Config,
    slots: Vec<Mutex<Option<Arc<Connection>>>>,
    next: AtomicUsize,
    began: Instant,
    /// Connections that have not answered since this time are in doubt; in milliseconds after `began`.
    doubted: AtomicU64,
    metrics: PoolMetrics,
}

impl fmt::Debug for Pool {
    // The configuration holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

struct Connection {
    client: Client,
    statements: SyncMutex<HashMap<String, Statement>>,
    /// Not to be used again: it hangs, or leads to a server that takes no writes.
    retired: AtomicBool,
    /// The pooler has refused a statement, or told an idle client to leave, which ends the connection: what was sent after that was not carried
    /// out, either.
    refused: watch::Sender<bool>,
    /// When it answered last, in milliseconds after the pool began.
    answered: AtomicU64,
    _counted: Counted,
}

impl Pool {
    /// So many connections, each made when it is first used. `config` is [`tuned`].
    pub(super) fn new(config: Config, size: usize, metrics: PoolMetrics) -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(size).collect();
        Self { config, slots, next: AtomicUsize::new(0), began: Instant::now(), doubted: AtomicU64::new(0), metrics }
    }

    /// Runs a statement, which must be over at `deadline`.
    pub(super) async fn query(&self, sql: &str, params: Params<'_>, deadline: Instant) -> Result<Vec<Row>, Failure> {
        let _counted = Counted::of(&self.metrics.statements);
        let began = Instant::now();
        let late = |what| Failure::timed_out(what, deadline - began);
        let connection = timeout_at(deadline, self.connection())
            .await
            .map_err(|_| Failure { effect: Effect::None, ..late("connecting") })??;
        let result = match self.answer(&connection, deadline, connection.statement(sql)).await {
            None => Err(Failure { effect: Effect::None, ..late("preparing a statement") }),
            Some(Err(failure)) => Err(failure),
            Some(Ok(statement)) => {
                match self.answer(&connection, deadline, connection.client.query(&statement, params)).await {
                    None => Err(late("running a statement")),
                    Some(Err(error)) => Err(connection.failure(error).await),
                    Some(Ok(rows)) => Ok(rows),
                }
            }
        };
        if result.as_ref().is_err_and(|failure| failure.passing) {
            connection.retired.store(true, Ordering::Relaxed);
        }
        result
    }

    /// What a connection answers by the deadline. As soon as that takes long, others do not rely on those like it.
    async fn answer<T>(&self, connection: &Connection, deadline: Instant, asked: impl Future<Output = T>) -> Option<T> {
        let sent = self.now();
        let mut asked = pin!(asked);
        let soon = timeout_at(deadline.min(Instant::now() + DOUBT), &mut asked).await;
        let answer = if let Ok(answer) = soon {
            answer
        } else {
            self.doubted.fetch_max(sent, Ordering::Relaxed);
            timeout_at(deadline, asked).await.ok()?
        };
        connection.answered.fetch_max(self.now(), Ordering::Relaxed);
        Some(answer)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        // Whoever comes while a connection is made waits here and gets the same one.
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.client.is_closed()
            && !connection.retired.load(Ordering::Relaxed)
            && connection.answered.load(Ordering::Relaxed) >= self.doubted.load(Ordering::Relaxed)
        {
            return Ok(Arc::clone(connection));
        }
        let refused = watch::Sender::new(false);
        let connection = Arc::new(Connection {
            client: open(&self.config, refused.clone()).await?,
            statements: SyncMutex::default(),
            retired: AtomicBool::new(false),
            refused,
            answered: AtomicU64::new(self.now()),
            _counted: Counted::of(&self.metrics.connections),
        });
        Ok(Arc::clone(slot.insert(connection)))
    }
}

impl Connection {
    /// Why a statement that was sent failed.
    async fn failure(&self, error: Error) -> Failure {
        let is_refused = error.as_db_error().is_some_and(is_refusal);
        if is_refused {
            self.refused.send_replace(true);
        }
        let failure = Failure::from(error);
        if failure.effect == Effect::Unknown && self.has_refused().await {
            return Failure { effect: Effect::None, ..failure };
        }
        failure
    }

    /// Whether the pooler had refused what came before. Who is told may hear of it a moment later.
    async fn has_refused(&self) -> bool {
        let mut refused = self.refused.subscribe();
        matches!(timeout(HEARSAY, refused.wait_for(|refused| *refused)).await, Ok(Ok(_)))
    }

    async fn statement(&self, sql: &str) -> Result<Statement, Failure> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = match self.client.prepare(sql).await {
            Ok(statement) => statement,
            // It was only prepared.
            Err(error) => return Err(Failure { effect: Effect::None, ..self.failure(error).await }),
        };
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Lets a client in, and has it leave with this message.
    async fn see_off(pooler: TcpListener, message: &str) {
        let (mut client, _) = pooler.accept().await.unwrap();
        assert!(client.read(&mut [0; 1024]).await.unwrap() > 0, "it asks to be let in");
        let let_in = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        let fields = format!("SFATAL\0VFATAL\0C08P01\0M{message}\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[let_in, &b"E"[..], &length, fields.as_bytes()].concat()).await.unwrap();
    }

    /// What a statement may have done that was given to a connection which the pooler had ended with this message.
    async fn effect_after(message: &str) -> Effect {
        let pooler = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = pooler.local_addr().unwrap().port();
        let config = format!("host=127.0.0.1 port={port} user=tasks dbname=tasks").parse::<Config>().unwrap();
        let pool = Pool::new(config, 1, PoolMetrics::default());
        let (connection, ()) = tokio::join!(pool.connection(), see_off(pooler, message));
        let connection = connection.unwrap();
        let asked = connection.client.query("SELECT 1", &[]).await;
        connection.failure(asked.unwrap_err()).await.effect
    }

    #[tokio::test]
    async fn a_statement_for_a_pooler_that_had_its_client_leave_was_not_carried_out() {
        assert_eq!(effect_after("client_idle_timeout").await, Effect::None);
        assert_eq!(effect_after("server conn crashed?").await, Effect::Unknown);
    }
}
