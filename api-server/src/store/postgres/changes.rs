//! Writes of tasks: the arrays that `apply_operations` takes (see migration 3), and the rows that it returns.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::{
    Postgres, Repeatable,
    pool::Params,
    rows::{column, no_row, read_task},
};
use crate::{
    form::Change,
    id::TaskId,
    store::{Idempotency, Mark, Operation, Outcome, StoreError, Written},
    tasks::model::{NewTask, Priority, Status, TaskPatch, Version},
};

impl Postgres {
    pub(super) async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        let repeatable = repeatable(&operations, idempotency);
        let count = operations.len();
        let mut columns = Columns::default();
        for operation in operations {
            columns.push(user_id, operation);
        }
        let Columns {
            user_ids,
            kinds,
            ids,
            expected,
            titles,
            sets_descriptions,
            descriptions,
            statuses,
            priorities,
            sets_due_dates,
            due_dates,
            traceparents,
        } = &columns;
        #[rustfmt::skip]
        let operations: Params<'_> = &[
            &self.events, user_ids, kinds, ids, expected, titles, sets_descriptions, descriptions, statuses, priorities, sets_due_dates,
            due_dates, traceparents,
        ];
        let rows = match idempotency {
            None => {
                let sql = "SELECT false AS replayed, o.* FROM apply_operations($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS o";
                self.write(repeatable, sql, operations).await?
            }
            Some(Idempotency { key, fingerprint }) => {
                let sql = "SELECT o.replayed, (o.done).* FROM apply_once(
                    $14, $15, $16, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS o";
                let (key, fingerprint) = (key.as_str(), fingerprint.as_slice());
                let params: Vec<_> =
                    operations.iter().copied().chain([&user_id as _, &key as _, &fingerprint as _]).collect();
                self.write(repeatable, sql, &params).await?
            }
        };
        let replayed = rows.first().map(|row| column(row, "replayed")).transpose()?.unwrap_or(false);
        let (outcomes, marks) = rows.iter().map(read_outcome).collect::<Result<(Vec<_>, Vec<_>), _>>()?;
        if outcomes.len() != count {
            return Err(no_row());
        }
        Ok(Written { value: outcomes, mark: marks.into_iter().flatten().max(), replayed })
    }
}

/// Whether operations may be done twice when nobody knows whether they were done.
fn repeatable(operations: &[Operation], idempotency: Option<&Idempotency>) -> Repeatable {
    // Twice the same update is the same update; but not if the second one expects what the first one changed. A second delete would
    // not find its task and call a success a 404.
    let harmless = |operation: &Operation| matches!(operation, Operation::Update { expected: None, .. });
    if idempotency.is_some() || operations.iter().all(harmless) { Repeatable::Yes } else { Repeatable::No }
}

/// Operations as `apply_operations` takes them.
#[derive(Debug, Default)]
struct Columns {
    user_ids: Vec<i64>,
    kinds: Vec<&'static str>,
    ids: Vec<Option<i64>>,
    expected: Vec<Option<i64>>,
    titles: Vec<Option<String>>,
    sets_descriptions: Vec<bool>,
    descriptions: Vec<Option<String>>,
    statuses: Vec<Option<&'static str>>,
    priorities: Vec<Option<&'static str>>,
    sets_due_dates: Vec<bool>,
    due_dates: Vec<Option<Timestamp>>,
    traceparents: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, user_id: i64, operation: Operation) {
        let (kind, id, expected, patch) = match operation {
            Operation::Create(task) => ("create", None, None, whole(task)),
            Operation::Update { id, patch, expected } if patch.is_empty() => ("read", Some(id), expected, patch),
            Operation::Update { id, patch, expected } => ("update", Some(id), expected, patch),
            Operation::Delete { id, expected } => ("delete", Some(id), expected, TaskPatch::default()),
        };
        self.user_ids.push(user_id);
        self.kinds.push(kind);
        self.ids.push(id.map(TaskId::get));
        self.expected.push(expected.map(|Version(version)| version));
        let TaskPatch { title, description, status, priority, due_date } = patch;
        self.titles.push(title);
        self.sets_descriptions.push(description != Change::Keep);
        self.descriptions.push(description.value());
        self.statuses.push(status.map(Status::as_str));
        self.priorities.push(priority.map(Priority::as_str));
        self.sets_due_dates.push(due_date != Change::Keep);
        self.due_dates.push(due_date.value());
        self.traceparents.push(None);
    }
}

/// A new task is a change of everything.
fn whole(task: NewTask) -> TaskPatch {
    let NewTask { title, description, status, priority, due_date } = task;
    TaskPatch {
        title: Some(title),
        description: description.map_or(Change::Clear, Change::Set),
        status: Some(status),
        priority: Some(priority),
        due_date: due_date.map_or(Change::Clear, Change::Set),
    }
}

fn read_outcome(row: &Row) -> Result<(Outcome, Option<Mark>), StoreError> {
    let mark = column::<Option<i64>>(row, "mark")?.map(Mark);
    let outcome = match column(row, "outcome")? {
        "created" => Outcome::Created(read_task(row)?),
        "updated" => Outcome::Updated(read_task(row)?),
        "deleted" => {
            let id: i64 = column(row, "id")?;
            Outcome::Deleted(TaskId::new(id).ok_or_else(|| StoreError::Broken(format!("the id {id} of a task")))?)
        }
        "not_found" => Outcome::NotFound,
        "conflict" => Outcome::Conflict,
        "key_reused" => return Err(StoreError::KeyReused),
        other => return Err(StoreError::Broken(format!("the outcome {other:?}"))),
    };
    Ok((outcome, mark))
}
