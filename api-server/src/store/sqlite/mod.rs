//! The store in a file, for one process alone: WAL, one thread that writes, some that read.

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

use super::{ListRequest, Mark, NewUser, StoreError, Written};
use crate::{
    auth::model::User,
    form::Change,
    id::TaskId,
    tasks::{
        cursor::Position,
        model::{NewTask, Priority, Status, Task, TaskPatch},
    },
};
use threads::Threads;

/// Append only: what was applied anywhere never changes. `user_version` counts them.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_accounts_and_tasks.sql")];

const READERS: usize = 2;

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

const USER: &str = "id, email, name, created_at";
const TASK: &str = "id, user_id, title, description, status, priority, created_at, updated_at, due_date";

/// See the module.
#[derive(Debug)]
pub(super) struct Sqlite {
    writer: Threads,
    readers: Threads,
    /// The greatest id so far; the next is greater, also when its second is the same.
    last_id: Arc<AtomicI64>,
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
        Ok(Self { writer, readers, last_id: Arc::default() })
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

    pub(super) async fn create_task(&self, user_id: i64, task: &NewTask) -> Result<Written<Task>, StoreError> {
        let sql = format!("INSERT INTO tasks ({TASK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8) RETURNING {TASK}");
        let (task, last_id) = (task.clone(), Arc::clone(&self.last_id));
        let made = self.write(move |connection| {
            let now = Timestamp::now();
            // Only this thread makes ids.
            let id = TaskId::first_of(now).get().max(last_id.load(Ordering::Relaxed) + 1);
            let NewTask { title, description, status, priority, due_date } = task;
            let (status, priority) = (status.as_str(), priority.as_str());
            let params = (id, user_id, title, description, status, priority, Micros(now), due_date.map(Micros));
            let made = connection.prepare_cached(&sql)?.query_row(params, read_task)?;
            last_id.store(id, Ordering::Relaxed);
            Ok(made)
        });
        made.await.map(written)
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

    pub(super) async fn update_task(
        &self,
        user_id: i64,
        id: TaskId,
        patch: &TaskPatch,
    ) -> Result<Option<Written<Task>>, StoreError> {
        let sql = format!(
            "UPDATE tasks SET title = coalesce(?3, title), status = coalesce(?4, status), priority = coalesce(?5, priority),
                description = CASE WHEN ?6 THEN ?7 ELSE description END,
                due_date = CASE WHEN ?8 THEN ?9 ELSE due_date END, updated_at = ?10
             WHERE id = ?1 AND user_id = ?2 RETURNING {TASK}"
        );
        let TaskPatch { title, description, status, priority, due_date } = patch.clone();
        let changed = self.write(move |connection| {
            let (sets_description, sets_due_date) = (description != Change::Keep, due_date != Change::Keep);
            let params = (
                id.get(),
                user_id,
                title,
                status.map(Status::as_str),
                priority.map(Priority::as_str),
                sets_description,
                description.value(),
                sets_due_date,
                due_date.value().map(Micros),
                Micros(Timestamp::now()),
            );
            connection.prepare_cached(&sql)?.query_row(params, read_task).optional()
        });
        Ok(changed.await?.map(written))
    }

    pub(super) async fn delete_task(&self, user_id: i64, id: TaskId) -> Result<Option<Written<()>>, StoreError> {
        let sql = "DELETE FROM tasks WHERE id = ?1 AND user_id = ?2";
        let deleted =
            self.write(move |connection| connection.prepare_cached(sql)?.execute((id.get(), user_id))).await?;
        Ok((deleted > 0).then(|| written(())))
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
    Written { value, mark: None }
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
