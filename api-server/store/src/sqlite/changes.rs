//! Changes to tasks. All of this runs on the writer's thread, inside a transaction.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use task_api_domain::{
    id::TaskId,
    task::{NewTask, Priority, Status, TaskPatch, Version},
    validation::Change,
};

use super::{
    columns::{Micros, read_task, task_columns},
    connection::execute,
};
use crate::{Idempotency, Operation, Outcome, PIECE_BYTES, Quota, StoreError};

/// Makes ids, each greater than all before it, also when their second is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids(Arc<AtomicI64>);

impl Ids {
    /// Goes on after the ids in the file, but for those of tasks from before 2020.
    pub(super) fn go_on(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT coalesce(max(id), 0) FROM tasks WHERE id < ?1";
        let greatest = connection.query_row(sql, [TaskId::PAST], |row| row.get(0))?;
        self.0.store(greatest, Ordering::Relaxed);
        Ok(())
    }

    /// Only the writer's thread asks.
    fn next(&self, now: Timestamp) -> i64 {
        let id = TaskId::next(self.0.load(Ordering::Relaxed), now).get();
        self.0.store(id, Ordering::Relaxed);
        id
    }
}

/// Brings what changed in this transaction into the index of searches: see the migration that makes it.
pub(super) fn index(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.prepare_cached("SELECT 1 FROM unindexed_tasks")?.exists([])? {
        return Ok(());
    }
    let forget = "DELETE FROM tasks_search WHERE rowid IN (SELECT id FROM unindexed_tasks)";
    let add = "INSERT INTO tasks_search (rowid, owner, words)
        SELECT id, user_id, title || ' ' || coalesce(description, '') FROM unindexed_tasks JOIN tasks USING (id)";
    for sql in [forget, add, "DELETE FROM unindexed_tasks"] {
        execute(connection, sql)?;
    }
    Ok(())
}

/// What became of a request's operations.
pub(super) struct Applied {
    pub(super) outcomes: Vec<Outcome>,
    /// They were stored under the request's key before.
    pub(super) replayed: bool,
    /// Whether there is anything to be seen of it.
    pub(super) changed: bool,
}

pub(super) fn apply(
    connection: &Connection,
    (ids, quota): (&Ids, Quota),
    user_id: i64,
    operations: Vec<Operation>,
    idempotency: Option<&Idempotency>,
) -> Result<Applied, StoreError> {
    if let Some(outcomes) = idempotency.map(|one| recall(connection, user_id, one)).transpose()?.flatten() {
        return Ok(Applied { outcomes, replayed: true, changed: false });
    }
    check_quota(connection, quota, user_id, &operations)?;
    let mut changed = false;
    let alone = operations.len() == 1;
    let (mut outcomes, mut told) = (Vec::with_capacity(operations.len()), 0);
    for operation in operations {
        let updated = match &operation {
            Operation::Update { id, .. } => Some(*id),
            Operation::Create(_) | Operation::Delete { .. } => None,
        };
        let empty = matches!(&operation, Operation::Update { patch, .. } if patch.is_empty());
        let outcome = apply_one(connection, ids, user_id, operation)?;
        changed |= !empty && !matches!(outcome, Outcome::NotFound | Outcome::Conflict);
        outcomes.push(match (outcome, updated) {
            (Outcome::Updated(task), Some(id)) if !alone && told >= PIECE_BYTES => Outcome::Changed(id, task.version),
            (Outcome::Updated(task), _) => {
                told += task.text_bytes();
                Outcome::Updated(task)
            }
            (other, _) => other,
        });
    }
    if let Some(idempotency) = idempotency {
        remember(connection, user_id, idempotency, &outcomes)?;
    }
    Ok(Applied { outcomes, replayed: false, changed })
}

/// Refuses what makes more tasks or text than a user may have. A text that replaces another counts in full.
fn check_quota(
    connection: &Connection,
    quota: Quota,
    user_id: i64,
    operations: &[Operation],
) -> Result<(), StoreError> {
    let (new_tasks, new_bytes) = operations.iter().fold((0, 0), |(tasks, bytes), operation| {
        let makes = matches!(operation, Operation::Create(_));
        (tasks + i64::from(makes), bytes + operation.text_bytes())
    });
    if new_bytes == 0 {
        return Ok(());
    }
    let sql = "SELECT tasks, bytes FROM task_usage WHERE user_id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let used: Option<(i64, i64)> = connection.prepare_cached(sql)?.query_row([user_id], read).optional()?;
    let (tasks, bytes) = used.unwrap_or_default();
    let is_over = |most: Option<i64>, would_be: i64| most.is_some_and(|most| would_be > most);
    if new_tasks > 0 && is_over(quota.tasks, tasks + new_tasks) || is_over(quota.bytes, bytes + new_bytes) {
        return Err(StoreError::QuotaExceeded);
    }
    Ok(())
}

fn apply_one(connection: &Connection, ids: &Ids, user_id: i64, operation: Operation) -> rusqlite::Result<Outcome> {
    let (id, expected, done) = match operation {
        Operation::Create(task) => return create(connection, ids, user_id, task),
        Operation::Update { id, patch, expected } => (id, expected, update(connection, user_id, id, patch, expected)?),
        Operation::Delete { id, expected } => (id, expected, delete(connection, user_id, id, expected)?),
    };
    match done {
        Some(outcome) => Ok(outcome),
        // Was it the version, or is there no such task?
        None if expected.is_some() && exists(connection, user_id, id)? => Ok(Outcome::Conflict),
        None => Ok(Outcome::NotFound),
    }
}

fn create(connection: &Connection, ids: &Ids, user_id: i64, task: NewTask) -> rusqlite::Result<Outcome> {
    const SQL: &str = concat!(
        "INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8) RETURNING ",
        task_columns!()
    );
    let now = Timestamp::now();
    let NewTask { title, description, status, priority, due_date } = task;
    let (status, priority) = (status.as_str(), priority.as_str());
    let params = (ids.next(now), user_id, title, description, status, priority, Micros(now), due_date.map(Micros));
    connection.prepare_cached(SQL)?.query_row(params, read_task).map(Outcome::Created)
}

fn update(
    connection: &Connection,
    user_id: i64,
    id: TaskId,
    patch: TaskPatch,
    expected: Option<Version>,
) -> rusqlite::Result<Option<Outcome>> {
    const READ: &str = concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?3, version)"
    );
    const UPDATE: &str = concat!(
        "UPDATE tasks SET version = version + 1, updated_at = ?4,
            title = coalesce(?5, title), status = coalesce(?6, status), priority = coalesce(?7, priority),
            description = CASE WHEN ?8 THEN ?9 ELSE description END,
            due_date = CASE WHEN ?10 THEN ?11 ELSE due_date END
         WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?3, version) RETURNING ",
        task_columns!()
    );
    let expected = expected.map(|Version(version)| version);
    let task = if patch.is_empty() {
        connection.prepare_cached(READ)?.query_row((id.get(), user_id, expected), read_task)
    } else {
        let TaskPatch { title, description, status, priority, due_date } = patch;
        let (sets_description, sets_due_date) = (description != Change::Keep, due_date != Change::Keep);
        let params = (
            id.get(),
            user_id,
            expected,
            Micros(Timestamp::now()),
            title,
            status.map(Status::as_str),
            priority.map(Priority::as_str),
            sets_description,
            description.value(),
            sets_due_date,
            due_date.value().map(Micros),
        );
        connection.prepare_cached(UPDATE)?.query_row(params, read_task)
    };
    Ok(task.optional()?.map(Outcome::Updated))
}

fn delete(
    connection: &Connection,
    user_id: i64,
    id: TaskId,
    expected: Option<Version>,
) -> rusqlite::Result<Option<Outcome>> {
    let sql = "DELETE FROM tasks WHERE id = ?1 AND user_id = ?2 AND version = coalesce(?3, version)";
    let expected = expected.map(|Version(version)| version);
    let deleted = connection.prepare_cached(sql)?.execute((id.get(), user_id, expected))?;
    Ok((deleted > 0).then_some(Outcome::Deleted(id)))
}

fn exists(connection: &Connection, user_id: i64, id: TaskId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM tasks WHERE id = ?1 AND user_id = ?2")?.exists((id.get(), user_id))
}

/// What became of a request with this key, if there was one.
fn recall(
    connection: &Connection,
    user_id: i64,
    idempotency: &Idempotency,
) -> Result<Option<Vec<Outcome>>, StoreError> {
    let sql = "SELECT fingerprint, outcomes FROM idempotency_keys WHERE user_id = ?1 AND key = ?2";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let before: Option<([u8; 32], String)> =
        connection.prepare_cached(sql)?.query_row((user_id, idempotency.key.as_str()), read).optional()?;
    match before {
        None => Ok(None),
        Some((fingerprint, _)) if fingerprint != idempotency.fingerprint => Err(StoreError::KeyReused),
        Some((_, outcomes)) => serde_json::from_str(&outcomes).map(Some).map_err(|error| {
            StoreError::Broken(format!("can't read the stored outcomes of an idempotency key: {error}"))
        }),
    }
}

fn remember(
    connection: &Connection,
    user_id: i64,
    idempotency: &Idempotency,
    outcomes: &[Outcome],
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, outcomes, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let outcomes = serde_json::to_string(outcomes)
        .map_err(|error| StoreError::Broken(format!("can't store the outcomes of an idempotency key: {error}")))?;
    let params = (user_id, idempotency.key.as_str(), idempotency.fingerprint, outcomes, Micros(Timestamp::now()));
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

/// Forgets the keys of requests before `before`.
pub(super) fn sweep(connection: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM idempotency_keys WHERE created_at < ?1")?.execute([Micros(before)])
}
