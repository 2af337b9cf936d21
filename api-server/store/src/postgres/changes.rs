//! Writes of tasks: the arrays that `apply_operations` takes (see migration 10), and the rows that it returns.

use std::{iter, sync::LazyLock};

use jiff::Timestamp;
use task_api_domain::{
    id::TaskId,
    mark::Mark,
    task::{NewTask, Priority, Status, TaskPatch, Version},
    validation::Change,
};
use tokio_postgres::{Row, types::ToSql};

use super::{
    COUNTED_USER, Postgres, Repeatable,
    rows::{TASK_WITHOUT_TEXT, column, no_row, read_task},
};
use crate::{Idempotency, Operation, Outcome, PIECE_BYTES, StoreError, Writes, Written};

/// Calls `apply_operations` with [`Columns::params`].
pub(super) static APPLY: LazyLock<String> = LazyLock::new(|| {
    told(
        "SELECT false AS replayed, ($14::integer[])[o.operation] AS request, o.*
        FROM apply_operations($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS o",
    )
});
/// Calls `apply_once` with [`Columns::params`], and the user, key and fingerprint after them.
static APPLY_ONCE: LazyLock<String> = LazyLock::new(|| {
    told(
        "SELECT o.replayed, ($14::integer[])[(o.done).operation] AS request, (o.done).*
        FROM apply_once($17, $18, $19, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS o",
    )
});

/// What was `done`, in the order of the operations. Of a request with several, as many updates are told whole as [`PIECE_BYTES`] allows.
fn told(done: &str) -> String {
    format!(
        "SELECT replayed, outcome, {TASK_WITHOUT_TEXT}, CASE WHEN is_told THEN description END AS description, is_told, mark
         FROM (
            SELECT *, outcome <> 'updated' OR count(*) OVER (PARTITION BY request) = 1 OR coalesce(sum(
                octet_length(title) + coalesce(octet_length(description), 0)
            ) FILTER (WHERE outcome = 'updated') OVER (
                PARTITION BY request ORDER BY operation ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) < {PIECE_BYTES} AS is_told
            FROM ({done}) AS done
         ) AS measured ORDER BY operation"
    )
}

/// What became of a request.
pub(super) type Applied = Written<Vec<Outcome>>;

impl Postgres {
    pub(super) async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Applied, StoreError> {
        self.ensure_counted(user_id).await?;
        let Some(Idempotency { key, fingerprint }) = idempotency else {
            return self.writer.apply(user_id, operations).await;
        };
        let traceparent = self.writer.traceparent();
        let asked = Asked { user_id, operations: &operations, traceparent: traceparent.as_deref() };
        let columns = Columns::of(iter::once(asked));
        let (key, fingerprint) = (key.as_str(), fingerprint.as_slice());
        let mut params = columns.params(self.writer.rules());
        params.extend([&user_id as Param<'_>, &key, &fingerprint]);
        // Once is what it is about.
        let rows = self.writer.write(Repeatable::Yes, &APPLY_ONCE, &params).await?;
        read(&rows, operations.len())
    }

    /// Has a user counted who may have many tasks, so that those whose writes go together with theirs need not wait for it.
    async fn ensure_counted(&self, user_id: i64) -> Result<(), StoreError> {
        let Some(counted) = &self.counted else { return Ok(()) };
        if counted.get(user_id, |()| ()).is_none() {
            self.writer.write(Repeatable::Yes, "SELECT ensure_usage($1)", &[&user_id]).await?;
            counted.get_or_insert(user_id, COUNTED_USER, || (), |()| ());
        }
        Ok(())
    }
}

/// What the rows say that became of a request with so many operations.
pub(super) fn read(rows: &[Row], operations: usize) -> Result<Applied, StoreError> {
    let replayed = rows.first().map(|row| column(row, "replayed")).transpose()?.unwrap_or(false);
    let (outcomes, marks) = rows.iter().map(read_outcome).collect::<Result<(Vec<_>, Vec<_>), _>>()?;
    if outcomes.len() != operations {
        return Err(no_row());
    }
    Ok(Written { value: outcomes, mark: marks.into_iter().flatten().max(), replayed })
}

/// Whether operations may be done twice when nobody knows whether they were done.
pub(super) fn repeatable<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Repeatable {
    // Twice the same update is the same update; but not if the second one expects what the first one changed. A second delete would
    // not find its task and call a success a 404.
    let harmless = |operation: &Operation| matches!(operation, Operation::Update { expected: None, .. });
    if operations.into_iter().all(harmless) { Repeatable::Yes } else { Repeatable::No }
}

type Param<'a> = &'a (dyn ToSql + Sync);

/// A request's operations.
pub(super) struct Asked<'a> {
    pub(super) user_id: i64,
    pub(super) operations: &'a [Operation],
    pub(super) traceparent: Option<&'a str>,
}

/// Operations as `apply_operations` takes them.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    /// Which operations came together.
    requests: Vec<i32>,
    user_ids: Vec<i64>,
    kinds: Vec<&'static str>,
    ids: Vec<Option<i64>>,
    expected: Vec<Option<i64>>,
    titles: Vec<Option<&'a str>>,
    sets_descriptions: Vec<bool>,
    descriptions: Vec<Option<&'a str>>,
    statuses: Vec<Option<&'static str>>,
    priorities: Vec<Option<&'static str>>,
    sets_due_dates: Vec<bool>,
    due_dates: Vec<Option<Timestamp>>,
    traceparents: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// The operations of requests.
    pub(super) fn of(requests: impl Iterator<Item = Asked<'a>>) -> Self {
        let mut columns = Self::default();
        for (request, Asked { user_id, operations, traceparent }) in (0..).zip(requests) {
            for operation in operations {
                columns.requests.push(request);
                columns.user_ids.push(user_id);
                columns.traceparents.push(traceparent);
                columns.push(operation);
            }
        }
        columns
    }

    /// $1 to $16.
    pub(super) fn params<'b>(&'b self, Writes { events, quota }: &'b Writes) -> Vec<Param<'b>> {
        vec![
            events,
            &self.user_ids,
            &self.kinds,
            &self.ids,
            &self.expected,
            &self.titles,
            &self.sets_descriptions,
            &self.descriptions,
            &self.statuses,
            &self.priorities,
            &self.sets_due_dates,
            &self.due_dates,
            &self.traceparents,
            &self.requests,
            &quota.tasks,
            &quota.bytes,
        ]
    }

    fn push(&mut self, operation: &'a Operation) {
        match operation {
            Operation::Create(task) => {
                self.target("create", None, None);
                self.create(task);
            }
            Operation::Update { id, patch, expected } => {
                self.target(if patch.is_empty() { "read" } else { "update" }, Some(*id), *expected);
                self.update(patch);
            }
            Operation::Delete { id, expected } => {
                self.target("delete", Some(*id), *expected);
                self.update(&NOTHING);
            }
        }
    }

    fn target(&mut self, kind: &'static str, id: Option<TaskId>, expected: Option<Version>) {
        self.kinds.push(kind);
        self.ids.push(id.map(TaskId::get));
        self.expected.push(expected.map(|Version(version)| version));
    }

    fn create(&mut self, NewTask { title, description, status, priority, due_date }: &'a NewTask) {
        self.titles.push(Some(title));
        self.sets_descriptions.push(true);
        self.descriptions.push(description.as_deref());
        self.statuses.push(Some(status.as_str()));
        self.priorities.push(Some(priority.as_str()));
        self.sets_due_dates.push(true);
        self.due_dates.push(*due_date);
    }

    fn update(&mut self, TaskPatch { title, description, status, priority, due_date }: &'a TaskPatch) {
        self.titles.push(title.as_deref());
        self.sets_descriptions.push(*description != Change::Keep);
        self.descriptions.push(set(description).map(String::as_str));
        self.statuses.push(status.map(Status::as_str));
        self.priorities.push(priority.map(Priority::as_str));
        self.sets_due_dates.push(*due_date != Change::Keep);
        self.due_dates.push(set(due_date).copied());
    }
}

static NOTHING: TaskPatch =
    TaskPatch { title: None, description: Change::Keep, status: None, priority: None, due_date: Change::Keep };

fn set<T>(change: &Change<T>) -> Option<&T> {
    match change {
        Change::Set(value) => Some(value),
        Change::Keep | Change::Clear => None,
    }
}

fn read_id(row: &Row) -> Result<TaskId, StoreError> {
    let id: i64 = column(row, "id")?;
    TaskId::new(id).ok_or_else(|| StoreError::Broken(format!("the id {id} of a task")))
}

fn read_outcome(row: &Row) -> Result<(Outcome, Option<Mark>), StoreError> {
    let mark = column::<Option<i64>>(row, "mark")?.map(Mark);
    let outcome = match column(row, "outcome")? {
        "created" => Outcome::Created(read_task(row)?),
        "updated" if column(row, "is_told")? => Outcome::Updated(read_task(row)?),
        "updated" => Outcome::Changed(read_id(row)?, Version(column(row, "version")?)),
        "deleted" => Outcome::Deleted(read_id(row)?),
        "not_found" => Outcome::NotFound,
        "conflict" => Outcome::Conflict,
        "over_quota" => return Err(StoreError::QuotaExceeded),
        "key_reused" => return Err(StoreError::KeyReused),
        other => return Err(StoreError::Broken(format!("the outcome {other:?}"))),
    };
    Ok((outcome, mark))
}
