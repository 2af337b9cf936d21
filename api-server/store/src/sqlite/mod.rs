//! The store in a file, for one process alone: WAL, one thread that writes, a thread a core that reads, one that keeps the log short.

mod changes;
mod checkpoints;
mod columns;
mod connection;
mod import;
mod readers;
mod tasks;
mod thread;
mod writer;

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use task_api_domain::{id::TaskId, mark::Mark, summary::Summary, task::Task, user::User};

use crate::{
    Bound, Idempotency, ImportedAccount, ImportedTask, KeptSession, ListRequest, NewUser, Operation, Outcome, Piece,
    Quota, SearchRequest, SqliteConfig, StoreError, View, Written,
};
use changes::{Applied, Ids};
use checkpoints::Checkpoints;
use columns::{Micros, read_user, user_columns};
use readers::{Readers, Snapshot};
use writer::Writer;

/// How long an idempotency key is kept.
const KEY_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// See the module.
#[derive(Debug)]
pub(super) struct Sqlite {
    writer: Writer,
    readers: Readers,
    ids: Ids,
    quota: Quota,
}

impl Sqlite {
    pub(super) fn open(config: &SqliteConfig, quota: Quota) -> Result<Self, StoreError> {
        let open = || {
            connection::open(config).map_err(|error| {
                StoreError::Unavailable(format!(
                    "can't open the database file {}: {error}; check that the directory exists and may be written to",
                    config.file.display()
                ))
            })
        };
        let checkpoints = Checkpoints::start(open()?)?;
        let writer = Writer::start(open()?, changes::index, move || checkpoints.committed())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = (0..cores).map(|_| open()).collect::<Result<_, _>>()?;
        let readers = Readers::start(readers, &writer.commits())?;
        Ok(Self { writer, readers, ids: Ids::default(), quota })
    }

    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        let ids = self.ids.clone();
        let prepare = move |connection: &Connection| {
            connection::migrate(connection)?;
            Ok(ids.go_on(connection)?)
        };
        self.writer.run(prepare).await.map(|_| ())
    }

    pub(super) async fn keep_up(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let before = now.saturating_sub(KEY_LIFE).unwrap_or(Timestamp::MIN);
        let sweep = move |connection: &Connection| {
            connection.prepare_cached("DELETE FROM sessions WHERE ends_at < ?1")?.execute([Micros(now)])?;
            Ok(changes::sweep(connection, before)?)
        };
        self.writer.run(sweep).await.map(|_| ())
    }

    pub(super) async fn keep_session(
        &self,
        KeptSession { user_id, hash, ends_at }: KeptSession,
    ) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO sessions (user_id, hash, ends_at) VALUES (?1, ?2, ?3)";
        let keep = move |connection: &Connection| {
            Ok(connection.prepare_cached(sql)?.execute((user_id, hash, Micros(ends_at)))?)
        };
        self.writer.run(keep).await.map(|_| ())
    }

    pub(super) async fn end_session(&self, user_id: i64, hash: [u8; 32]) -> Result<(), StoreError> {
        let sql = "DELETE FROM sessions WHERE user_id = ?1 AND hash = ?2";
        let end = move |connection: &Connection| Ok(connection.prepare_cached(sql)?.execute((user_id, hash))?);
        self.writer.run(end).await.map(|_| ())
    }

    pub(super) async fn end_sessions(&self, user_id: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM sessions WHERE user_id = ?1";
        let end = move |connection: &Connection| Ok(connection.prepare_cached(sql)?.execute([user_id])?);
        self.writer.run(end).await.map(|_| ())
    }

    pub(super) async fn kept_sessions(&self) -> Result<Vec<KeptSession>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT user_id, hash, ends_at FROM sessions WHERE ends_at > ?1")?;
            let read = |row: &Row<'_>| {
                Ok(KeptSession { user_id: row.get(0)?, hash: row.get(1)?, ends_at: row.get::<_, Micros>(2)?.0 })
            };
            statement.query_map([Micros(Timestamp::now())], read)?.collect()
        })
        .await
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let token = getrandom::u64().unwrap_or_default().cast_signed();
        let write = move |connection: &Connection| {
            let sql = "INSERT INTO readiness (id, token) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET token = ?1";
            Ok(connection.execute(sql, [token])?)
        };
        self.writer.run(write).await?;
        let sql = "SELECT 1 FROM readiness WHERE token = ?1";
        let found = self.read(move |connection| connection.query_row(sql, [token], |_| Ok(())).optional()).await?;
        found.ok_or_else(|| StoreError::Unavailable("a row that was just written is not there".to_owned()))
    }

    pub(super) async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        const SQL: &str = concat!(
            "INSERT INTO users (email, email_key, name, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING ",
            user_columns!()
        );
        let (email, key) = (user.email.as_str().to_owned(), user.email.key());
        let (name, hash) = (user.name.clone(), user.password_hash.clone());
        let insert = move |connection: &Connection| {
            let params = (email, key, name, hash, Micros(Timestamp::now()));
            match connection.prepare_cached(SQL)?.query_row(params, read_user) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    Err(StoreError::EmailTaken)
                }
                made => Ok(made?),
            }
        };
        let (user, mark) = self.writer.run(insert).await?;
        Ok(Written { value: user, mark: Some(mark), replayed: false })
    }

    pub(super) async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        const SQL: &str = concat!("SELECT ", user_columns!(), ", password_hash FROM users WHERE email_key = ?1");
        let key = email_key.to_owned();
        self.read(move |connection| {
            let read = |row: &Row<'_>| Ok((read_user(row)?, row.get("password_hash")?));
            connection.prepare_cached(SQL)?.query_row([key], read).optional()
        })
        .await
    }

    pub(super) async fn set_password(&self, user_id: i64, from: &str, to: &str) -> Result<bool, StoreError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let sql = "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2";
        let set = move |connection: &Connection| Ok(connection.prepare_cached(sql)?.execute((user_id, from, to))?);
        self.writer.run(set).await.map(|(changed, _)| changed > 0)
    }

    pub(super) async fn user(&self, id: i64, _: Option<Mark>) -> Result<Option<User>, StoreError> {
        const SQL: &str = concat!("SELECT ", user_columns!(), " FROM users WHERE id = ?1");
        self.read(move |connection| connection.prepare_cached(SQL)?.query_row([id], read_user).optional()).await
    }

    pub(super) async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        let (ids, quota, idempotency) = (self.ids.clone(), self.quota, idempotency.cloned());
        let apply = move |connection: &Connection| {
            changes::apply(connection, (&ids, quota), user_id, operations, idempotency.as_ref())
        };
        let (Applied { outcomes, replayed, changed }, mark) = self.writer.run(apply).await?;
        Ok(Written { value: outcomes, mark: changed.then_some(mark), replayed })
    }

    pub(super) async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        _: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        let list = *list;
        self.read(move |connection| tasks::list(connection, user_id, &list)).await
    }

    pub(super) async fn task(&self, user_id: i64, id: TaskId, _: Option<Mark>) -> Result<Option<Task>, StoreError> {
        self.read(move |connection| tasks::get(connection, user_id, id)).await
    }

    pub(super) async fn search_tasks(
        &self,
        user_id: i64,
        search: &SearchRequest,
        _: Option<Mark>,
    ) -> Result<Piece, StoreError> {
        let search = search.clone();
        self.read(move |connection| tasks::search(connection, user_id, &search)).await
    }

    pub(super) async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        self.read(move |connection| tasks::summary(connection, user_id)).await
    }

    pub(super) async fn load_view(&self, user_id: i64, bound: Bound, _: Option<Mark>) -> Result<View, StoreError> {
        self.readers.run(move |snapshot: &Snapshot<'_>| tasks::view(snapshot, user_id, bound)).await
    }

    pub(super) async fn imported_accounts(&self, source: &str) -> Result<HashMap<i64, i64>, StoreError> {
        let source = source.to_owned();
        self.read(move |connection| import::accounts(connection, &source)).await
    }

    pub(super) async fn import_accounts(
        &self,
        source: &str,
        accounts: Vec<ImportedAccount>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let source = source.to_owned();
        let add = move |connection: &Connection| {
            let add = |account| import::add_account(connection, &source, account);
            Ok(accounts.iter().map(add).collect::<Result<_, _>>()?)
        };
        self.writer.run(add).await.map(|(ids, _)| ids)
    }

    pub(super) async fn imported_up_to(&self, source: &str) -> Result<i64, StoreError> {
        let source = source.to_owned();
        self.read(move |connection| import::up_to(connection, &source)).await
    }

    pub(super) async fn import_tasks(
        &self,
        source: &str,
        tasks: Vec<ImportedTask>,
        up_to: i64,
    ) -> Result<(), StoreError> {
        let source = source.to_owned();
        let add = move |connection: &Connection| import::add_tasks(connection, &source, &tasks, up_to);
        self.writer.run(add).await.map(|((), _)| ())
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(move |snapshot: &Snapshot<'_>| job(snapshot.connection)).await
    }
}

impl From<&rusqlite::Error> for StoreError {
    fn from(error: &rusqlite::Error) -> Self {
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from(&error)
    }
}
