//! Rows of the tables as what they stand for.

use jiff::Timestamp;
use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use task_api_domain::{
    task::{Priority, Status, Task, Version},
    user::User,
};

/// The columns of [`read_user`], in its order. A macro, so that statements are put together when the program is built.
macro_rules! user_columns {
    () => {
        "id, email, name, created_at"
    };
}

/// The columns of [`read_task`], in its order.
macro_rules! task_columns {
    () => {
        "id, user_id, version, title, description, status, priority, created_at, updated_at, due_date"
    };
}

pub(super) use {task_columns, user_columns};

pub(super) fn read_user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: row.get(0)?, email: row.get(1)?, name: row.get(2)?, created_at: row.get::<_, Micros>(3)?.0 })
}

pub(super) fn read_task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row.get(0)?,
        user_id: row.get(1)?,
        version: Version(row.get(2)?),
        title: row.get(3)?,
        description: row.get(4)?,
        status: row.get::<_, Word<Status>>(5)?.0,
        priority: row.get::<_, Word<Priority>>(6)?.0,
        created_at: row.get::<_, Micros>(7)?.0,
        updated_at: row.get::<_, Micros>(8)?.0,
        due_date: row.get::<_, Option<Micros>>(9)?.map(|Micros(at)| at),
    })
}

/// A time as its column keeps it.
pub(super) struct Micros(pub(super) Timestamp);

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

/// A status or a priority as its column keeps it.
pub(super) struct Word<T>(pub(super) T);

impl FromSql for Word<Status> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Status::from_word(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for Word<Priority> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Priority::from_word(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}
