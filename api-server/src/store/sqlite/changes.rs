//! Writes of tasks.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::{Micros, Sqlite, TASK, read_task};
use crate::{
    form::Change,
    id::TaskId,
    store::{Idempotency, Mark, Operation, Outcome, StoreError, Written},
    tasks::model::{NewTask, Priority, Status, Task, TaskPatch, Version},
};

impl Sqlite {
    pub(in crate::store) async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        let (last_id, commits) = (self.last_id.clone(), self.commits.clone());
        let idempotency = idempotency.cloned();
        let applied = self.write(move |connection| {
            let transaction = connection.transaction()?;
            if let Some(idempotency) = &idempotency
                && let Some(before) = replay(&transaction, user_id, idempotency)?
            {
                return Ok(before.map(|outcomes| Written { value: outcomes, mark: None, replayed: true }));
            }
            let mut outcomes = Vec::with_capacity(operations.len());
            for operation in operations {
                outcomes.push(apply_one(&transaction, &last_id, user_id, operation)?);
            }
            if let Some(idempotency) = &idempotency {
                keep(&transaction, user_id, idempotency, &outcomes)?;
            }
            transaction.commit()?;
            // After the commit can be seen, and before anyone is told of it.
            let mark = Mark(commits.fetch_add(1, Ordering::Release) + 1);
            Ok(Ok(Written { value: outcomes, mark: Some(mark), replayed: false }))
        });
        applied.await?
    }
}

/// What a request with this key got, if there was one.
fn replay(
    connection: &Connection,
    user_id: i64,
    Idempotency { key, fingerprint }: &Idempotency,
) -> rusqlite::Result<Option<Result<Vec<Outcome>, StoreError>>> {
    let sql = "SELECT fingerprint, outcomes FROM idempotency_keys WHERE user_id = ?1 AND key = ?2";
    let before: Option<(Vec<u8>, String)> = connection
        .prepare_cached(sql)?
        .query_row((user_id, key.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(before.map(|(before, outcomes)| {
        if before != fingerprint {
            return Err(StoreError::KeyReused);
        }
        serde_json::from_str(&outcomes).map_err(|error| StoreError::Broken(format!("kept outcomes: {error}")))
    }))
}

fn keep(
    connection: &Connection,
    user_id: i64,
    Idempotency { key, fingerprint }: &Idempotency,
    outcomes: &[Outcome],
) -> rusqlite::Result<()> {
    let outcomes =
        serde_json::to_string(outcomes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let sql =
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, outcomes, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let params = (user_id, key.as_str(), fingerprint, outcomes, Micros(Timestamp::now()));
    connection.prepare_cached(sql)?.execute(params).map(|_| ())
}

fn apply_one(
    connection: &Connection,
    last_id: &AtomicI64,
    user_id: i64,
    operation: Operation,
) -> rusqlite::Result<Outcome> {
    let (id, expected, done) = match operation {
        Operation::Create(task) => return create(connection, last_id, user_id, task).map(Outcome::Created),
        Operation::Update { id, patch, expected } => {
            (id, expected, update(connection, user_id, id, patch, expected)?.map(Outcome::Updated))
        }
        Operation::Delete { id, expected } => {
            (id, expected, delete(connection, user_id, id, expected)?.then_some(Outcome::Deleted(id)))
        }
    };
    if let Some(done) = done {
        return Ok(done);
    }
    let sql = "SELECT 1 FROM tasks WHERE id = ?1 AND user_id = ?2";
    let exists = expected.is_some() && connection.prepare_cached(sql)?.exists((id.get(), user_id))?;
    Ok(if exists { Outcome::Conflict } else { Outcome::NotFound })
}

fn create(connection: &Connection, last_id: &AtomicI64, user_id: i64, task: NewTask) -> rusqlite::Result<Task> {
    let sql = format!("INSERT INTO tasks ({TASK}) VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?7, ?8) RETURNING {TASK}");
    let now = Timestamp::now();
    // Only this thread makes ids.
    let id = TaskId::first_of(now).get().max(last_id.load(Ordering::Relaxed) + 1);
    let NewTask { title, description, status, priority, due_date } = task;
    let (status, priority) = (status.as_str(), priority.as_str());
    let params = (id, user_id, title, description, status, priority, Micros(now), due_date.map(Micros));
    let made = connection.prepare_cached(&sql)?.query_row(params, read_task)?;
    last_id.store(id, Ordering::Relaxed);
    Ok(made)
}

fn update(
    connection: &Connection,
    user_id: i64,
    id: TaskId,
    patch: TaskPatch,
    expected: Option<Version>,
) -> rusqlite::Result<Option<Task>> {
    let expected = expected.map(|Version(version)| version);
    if patch.is_empty() {
        let sql =
            format!("SELECT {TASK} FROM tasks WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?3, version)");
        return connection.prepare_cached(&sql)?.query_row((id.get(), user_id, expected), read_task).optional();
    }
    let sql = format!(
        "UPDATE tasks SET title = coalesce(?3, title), status = coalesce(?4, status), priority = coalesce(?5, priority),
            description = CASE WHEN ?6 THEN ?7 ELSE description END,
            due_date = CASE WHEN ?8 THEN ?9 ELSE due_date END, updated_at = ?10, version = version + 1
         WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?11, version) RETURNING {TASK}"
    );
    let TaskPatch { title, description, status, priority, due_date } = patch;
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
        expected,
    );
    connection.prepare_cached(&sql)?.query_row(params, read_task).optional()
}

fn delete(connection: &Connection, user_id: i64, id: TaskId, expected: Option<Version>) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM tasks WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?3, version)";
    let expected = expected.map(|Version(version)| version);
    Ok(connection.prepare_cached(sql)?.execute((id.get(), user_id, expected))? > 0)
}
