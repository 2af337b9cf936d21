//! The store in a file, for one process alone: WAL, one thread that writes, some that read.

mod changes;
mod threads;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use super::{ListRequest, Mark, NewUser, SearchRequest, StoreError, View, Written};
use crate::{
    auth::model::User,
    id::TaskId,
    tasks::{
        cursor::Position,
        model::{Priority, Status, Task, Version},
        search::Term,
        summary::Summary,
    },
};
use threads::Threads;

/// Append only: what was applied anywhere never changes. `user_version` counts them.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_accounts_and_tasks.sql")];

const READERS: usize = 2;

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

const USER: &str = "id, email, name, created_at";
const TASK: &str = "id, user_id, version, title, description, status, priority, created_at, updated_at, due_date";

/// See the module.
#[derive(Debug)]
pub(super) struct Sqlite {
    writer: Threads,
    readers: Threads,
    /// The greatest id so far; the next is greater, also when its second is the same.
    last_id: Arc<AtomicI64>,
    /// How many commits there were: see [`Mark`].
    commits: Arc<AtomicI64>,
}

impl Sqlite {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            connect(path).map_err(|error| {
                StoreError::Unavailable(format!(
                    "can't open the database file {}: {error}; check that the directory exists and may be written to",
                    path.display()
                ))
            })
        };
        let writer = Threads::start("sqlite-writer", vec![open()?])?;
        let readers = (0..READERS).map(|_| open()).collect::<Result<_, _>>()?;
        let readers = Threads::start("sqlite-reader", readers)?;
        Ok(Self { writer, readers, last_id: Arc::default(), commits: Arc::default() })
    }

    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        let last_id = Arc::clone(&self.last_id);
        self.write(move |connection| {
            migrate(connection)?;
            let greatest: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM tasks", [], |row| row.get(0))?;
            last_id.store(greatest, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let token = getrandom::u64().unwrap_or_default().cast_signed();
        self.write(move |connection| {
            let sql = "INSERT INTO readiness (id, token) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET token = ?1";
            connection.execute(sql, [token]).map(|_| ())
        })
        .await?;
        let sql = "SELECT 1 FROM readiness WHERE token = ?1";
        let found = self.read(move |connection| connection.query_row(sql, [token], |_| Ok(())).optional()).await?;
        found.ok_or_else(|| StoreError::Unavailable("a row that was just written is not there".to_owned()))
    }

    pub(super) async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        let sql = format!(
            "INSERT INTO users (email, email_key, name, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING {USER}"
        );
        let (email, key) = (user.email.as_str().to_owned(), user.email.key());
        let (name, hash) = (user.name.clone(), user.password_hash.clone());
        let made = self.write(move |connection| {
            let params = (email, key, name, hash, Micros(Timestamp::now()));
            let made = connection.prepare_cached(&sql)?.query_row(params, read_user);
            match made {
                Err(error) if is_unique_violation(&error) => Ok(None),
                made => made.map(Some),
            }
        });
        made.await?.map(written).ok_or(StoreError::EmailTaken)
    }

    pub(super) async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        let sql = format!("SELECT {USER}, password_hash FROM users WHERE email_key = ?1");
        let key = email_key.to_owned();
        self.read(move |connection| {
            let read = |row: &Row<'_>| Ok((read_user(row)?, row.get("password_hash")?));
            connection.prepare_cached(&sql)?.query_row([key], read).optional()
        })
        .await
    }

    pub(super) async fn user(&self, id: i64, _: Option<Mark>) -> Result<Option<User>, StoreError> {
        let sql = format!("SELECT {USER} FROM users WHERE id = ?1");
        self.read(move |connection| connection.prepare_cached(&sql)?.query_row([id], read_user).optional()).await
    }

    pub(super) async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        _: Option<Mark>,
    ) -> Result<Vec<Task>, StoreError> {
        let ListRequest { filter, after, limit } = *list;
        self.read(move |connection| {
            let (status, priority) = (filter.status.map(Status::as_str), filter.priority.map(Priority::as_str));
            let (at, id) = after.map(|Position { created_at, id }| (Micros(created_at), id)).unzip();
            let mut conditions = vec!["user_id = ?1".to_owned()];
            let mut params: Vec<&dyn ToSql> = vec![&user_id, &limit];
            if let Some(status) = &status {
                params.push(status);
                conditions.push(format!("status = ?{}", params.len()));
            }
            if let Some(priority) = &priority {
                params.push(priority);
                conditions.push(format!("priority = ?{}", params.len()));
            }
            if let (Some(at), Some(id)) = (&at, &id) {
                params.extend([at as &dyn ToSql, id]);
                conditions.push(format!("(created_at, id) < (?{}, ?{})", params.len() - 1, params.len()));
            }
            let conditions = conditions.join(" AND ");
            let sql = format!("SELECT {TASK} FROM tasks WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT ?2");
            connection.prepare_cached(&sql)?.query_map(params.as_slice(), read_task)?.collect()
        })
        .await
    }

    pub(super) async fn task(&self, user_id: i64, id: TaskId, _: Option<Mark>) -> Result<Option<Task>, StoreError> {
        let sql = format!("SELECT {TASK} FROM tasks WHERE id = ?1 AND user_id = ?2");
        self.read(move |connection| {
            connection.prepare_cached(&sql)?.query_row((id.get(), user_id), read_task).optional()
        })
        .await
    }

    /// Compares words as they are.
    pub(super) async fn search_tasks(
        &self,
        user_id: i64,
        search: &SearchRequest,
        _: Option<Mark>,
    ) -> Result<Vec<Task>, StoreError> {
        let SearchRequest { query, after, limit } = search.clone();
        self.read(move |connection| {
            let (at, id) = after.map(|Position { created_at, id }| (Micros(created_at), id)).unzip();
            let mut conditions = vec!["user_id = ?1".to_owned()];
            let mut params: Vec<&dyn ToSql> = vec![&user_id, &limit];
            let terms = query.terms().iter().map(|Term { text, excluded }| (text.to_lowercase(), *excluded));
            let terms: Vec<_> = terms.collect();
            for (text, excluded) in &terms {
                params.push(text);
                let found = format!("instr(lower(title || ' ' || coalesce(description, '')), ?{}) > 0", params.len());
                conditions.push(if *excluded { format!("NOT {found}") } else { found });
            }
            if let (Some(at), Some(id)) = (&at, &id) {
                params.extend([at as &dyn ToSql, id]);
                conditions.push(format!("(created_at, id) < (?{}, ?{})", params.len() - 1, params.len()));
            }
            let conditions = conditions.join(" AND ");
            let sql = format!("SELECT {TASK} FROM tasks WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT ?2");
            connection.prepare_cached(&sql)?.query_map(params.as_slice(), read_task)?.collect()
        })
        .await
    }

    pub(super) async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        self.read(move |connection| {
            let mut summary = Summary::new(Timestamp::now());
            let sql = "SELECT status, priority, count(*) FROM tasks WHERE user_id = ?1 GROUP BY status, priority";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([user_id])?;
            while let Some(row) = rows.next()? {
                summary.add(row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs());
            }
            Ok(summary)
        })
        .await
    }

    pub(super) async fn load_view(&self, user_id: i64, most: usize, _: Option<Mark>) -> Result<View, StoreError> {
        let commits = Arc::clone(&self.commits);
        self.read(move |connection| {
            // Before the snapshot: it shows all of these, and perhaps more.
            let version = Mark(commits.load(Ordering::Acquire));
            let sql = format!("SELECT {TASK} FROM tasks WHERE user_id = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2");
            let limit = i64::try_from(most).unwrap_or(i64::MAX - 1) + 1;
            let mut tasks: Vec<Task> = connection
                .prepare_cached(&sql)?
                .query_map([user_id, limit], read_task)?
                .collect::<rusqlite::Result<_>>()?;
            let complete = tasks.len() <= most;
            tasks.truncate(most);
            Ok(View { tasks, complete, version })
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(job).await?.map_err(StoreError::from)
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(job).await?.map_err(StoreError::from)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A crash of the process loses nothing; a crash of the machine may lose the last writes, and corrupts nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let applied: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, sql) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > applied) {
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()
}

fn is_unique_violation(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let passing = [
            ErrorCode::DatabaseBusy,
            ErrorCode::DatabaseLocked,
            ErrorCode::DiskFull,
            ErrorCode::SystemIoFailure,
            ErrorCode::OutOfMemory,
            ErrorCode::ReadOnly,
        ];
        if error.sqlite_error_code().is_some_and(|code| passing.contains(&code)) {
            StoreError::Unavailable(error.to_string())
        } else {
            StoreError::Broken(error.to_string())
        }
    }
}

fn written<T>(value: T) -> Written<T> {
    Written { value, mark: None, replayed: false }
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get("id")?,
        email: row.get("email")?,
        name: row.get("name")?,
        created_at: row.get::<_, Micros>("created_at")?.0,
    })
}

fn read_task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row.get("id")?,
        user_id: row.get("user_id")?,
        version: Version(row.get("version")?),
        title: row.get("title")?,
        description: row.get("description")?,
        status: row.get("status")?,
        priority: row.get("priority")?,
        created_at: row.get::<_, Micros>("created_at")?.0,
        updated_at: row.get::<_, Micros>("updated_at")?.0,
        due_date: row.get::<_, Option<Micros>>("due_date")?.map(|Micros(at)| at),
    })
}

/// A time as its column keeps it.
struct Micros(Timestamp);

impl ToSql for Micros {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_microsecond().into())
    }
}

impl FromSql for Micros {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        Timestamp::from_microsecond(micros).map(Self).map_err(|_| FromSqlError::OutOfRange(micros))
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::from_word(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for Priority {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::from_word(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}
