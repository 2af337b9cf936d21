//! The reader's end of the outbox: events leave it in the order in which they came in, once they are told.
//!
//! Of two changes of a task, the later one's row has the greater id, and is never visible without the earlier one's, since whoever changes a task
//! waits for whoever does so already, and gets its row's id after that. Rows of other tasks may become visible out of order, so rows are
//! forgotten one by one, not up to the greatest that was told.
//!
//! Any number of readers may come: one at a time gets the rows, by a lock that lasts as long as its transaction. A reader that dies
//! loses it with its connection, one that hangs by the server's `idle_in_transaction_session_timeout` at the latest; the rows that it had not
//! forgotten are told again by the next. Until the rows are deleted the transaction writes nothing, so it has no id and holds back no mark
//! (see [`super`]), however long the telling takes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use tokio_postgres::{Client, Config, Row, Transaction, types::Type};

use super::{StoreError, column, own::OwnConnection, pool::Failure};

/// The most rows that are told in one transaction.
const MOST: i64 = 500;
/// The most bytes of tasks in them, but for the last.
const MOST_BYTES: i64 = 4 << 20;
/// The longest that a transaction may take, the telling included. PostgreSQL on the platform ends idle ones after 60 s.
const PATIENCE: Duration = Duration::from_secs(45);
/// Rows that wait are counted up to here.
const MOST_COUNTED: i64 = 100_000;

/// A change of a task that is to be told.
#[derive(Debug)]
pub struct Event {
    /// Its place in the outbox, and its name there.
    pub id: i64,
    /// The task that was changed.
    pub task_id: i64,
    /// Whose it is.
    pub user_id: i64,
    /// `task.created`, `task.updated` or `task.deleted`.
    pub kind: String,
    /// The task after that; none where it was deleted.
    pub task: Option<Box<RawValue>>,
    /// When.
    pub occurred_at: Timestamp,
    /// The trace context of the request that did it (W3C).
    pub traceparent: Option<String>,
}

/// What became of a look into the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// So many events were told, and there may be more.
    Some(usize),
    /// There was none.
    Nothing,
    /// Another reader tells them.
    Elsewhere,
}

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backlog {
    /// How many events, counted up to 100,000.
    pub pending: i64,
    /// How old the oldest is, in seconds.
    pub oldest_seconds: f64,
}

/// The outbox of one shard.
pub struct Outbox(OwnConnection);

impl Outbox {
    pub(super) fn new(config: Config) -> Self {
        Self(OwnConnection::new(config))
    }

    /// Gives the oldest events to `tell`, in order, and forgets them if it succeeds.
    pub async fn relay<E: From<StoreError>>(
        &mut self,
        tell: impl AsyncFnOnce(&[Event]) -> Result<(), E>,
    ) -> Result<Relayed, E> {
        self.0
            .with(PATIENCE, async |client| {
                if is_empty(client).await? {
                    return Ok(Relayed::Nothing);
                }
                let transaction = client.transaction().await.map_err(broken)?;
                if !lock(&transaction).await? {
                    return Ok(Relayed::Elsewhere);
                }
                // A statement of its own, so that its snapshot is younger than the lock: it shows what the last reader left.
                let events = oldest(&transaction).await?;
                tell(&events).await?;
                forget(transaction, &events).await?;
                Ok(Relayed::Some(events.len()))
            })
            .await
    }

    /// What waits.
    pub async fn backlog(&mut self) -> Result<Backlog, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS counted),
            coalesce(extract(epoch FROM clock_timestamp() - (SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0)::float8";
        self.0
            .with(PATIENCE, async |client| {
                let row = client.query_typed_one(sql, &[(&MOST_COUNTED, Type::INT8)]).await.map_err(broken)?;
                Ok(Backlog { pending: column(&row, 0)?, oldest_seconds: column(&row, 1)? })
            })
            .await
    }
}

fn broken(error: tokio_postgres::Error) -> StoreError {
    Failure::from(error).into()
}

/// One message each way, where a transaction would be four. By the index, which knows what is dead: the table may be long and empty.
async fn is_empty(client: &Client) -> Result<bool, StoreError> {
    let sql = "SELECT (SELECT id FROM outbox ORDER BY id LIMIT 1) IS NULL";
    let row = client.query_typed_one(sql, &[]).await.map_err(broken)?;
    column(&row, 0)
}

async fn lock(transaction: &Transaction<'_>) -> Result<bool, StoreError> {
    let row = transaction.query_typed("SELECT pg_try_advisory_xact_lock(7234116, 4)", &[]).await.map_err(broken)?;
    row.first().map_or(Ok(false), |row| column(row, 0))
}

async fn oldest(transaction: &Transaction<'_>) -> Result<Vec<Event>, StoreError> {
    let sql = "SELECT id, task_id, user_id, kind, payload::text AS task, created_at, traceparent
        FROM (
            SELECT *, sum(octet_length(payload::text)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
            FROM (SELECT * FROM outbox ORDER BY id LIMIT $1) AS oldest
        ) AS sized
        WHERE coalesce(bytes_before, 0) < $2 ORDER BY id";
    let params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] =
        &[(&MOST, Type::INT8), (&MOST_BYTES, Type::INT8)];
    let rows = transaction.query_typed(sql, params).await.map_err(broken)?;
    rows.iter().map(read_event).collect()
}

fn read_event(row: &Row) -> Result<Event, StoreError> {
    let task: Option<&str> = column(row, "task")?;
    let task = task.map(as_answered).transpose().map_err(|error| StoreError::Broken(error.to_string()))?;
    Ok(Event {
        id: column(row, "id")?,
        task_id: column(row, "task_id")?,
        user_id: column(row, "user_id")?,
        kind: column(row, "kind")?,
        task,
        occurred_at: column(row, "created_at")?,
        traceparent: column(row, "traceparent")?,
    })
}

/// A task with its times as the API writes them, and not as PostgreSQL does.
fn as_answered(task: &str) -> serde_json::Result<Box<RawValue>> {
    let mut task: Map<String, Value> = serde_json::from_str(task)?;
    for field in ["created_at", "updated_at", "due_date"] {
        if let Some(Value::String(time)) = task.get_mut(field)
            && let Ok(parsed) = time.parse::<Timestamp>()
        {
            *time = parsed.to_string();
        }
    }
    to_raw_value(&task)
}

async fn forget(transaction: Transaction<'_>, events: &[Event]) -> Result<(), StoreError> {
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    let sql = "DELETE FROM outbox WHERE id = ANY ($1)";
    transaction.query_typed(sql, &[(&ids, Type::INT8_ARRAY)]).await.map_err(broken)?;
    transaction.commit().await.map_err(broken)
}
