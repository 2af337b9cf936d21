//! What columns a row has, and what they become.

use jiff::Timestamp;
use task_api_domain::{
    task::{Priority, Status, Task, Version},
    user::User,
};
use tokio_postgres::{Row, types::FromSql};

use crate::StoreError;

/// What [`read_user`] reads.
pub(super) const USER: &str = "id, email, name, created_at";
/// What [`read_task`] reads.
pub(super) const TASK: &str =
    "id, user_id, version, title, description, status, priority, created_at, updated_at, due_date";
/// The same without its description.
pub(super) const TASK_WITHOUT_TEXT: &str =
    "id, user_id, version, title, status, priority, created_at, updated_at, due_date";

pub(super) fn read_user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: column(row, "id")?,
        email: column(row, "email")?,
        name: column(row, "name")?,
        created_at: column(row, "created_at")?,
    })
}

pub(super) fn read_task(row: &Row) -> Result<Task, StoreError> {
    Ok(Task {
        id: column(row, "id")?,
        user_id: column(row, "user_id")?,
        version: Version(column(row, "version")?),
        title: column(row, "title")?,
        description: column(row, "description")?,
        status: read_status(row)?,
        priority: read_priority(row)?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
        due_date: column::<Option<Timestamp>>(row, "due_date")?,
    })
}

pub(super) fn read_status(row: &Row) -> Result<Status, StoreError> {
    let word: &str = column(row, "status")?;
    Status::from_word(word).ok_or_else(|| StoreError::Broken(format!("a task has the status {word:?}")))
}

pub(super) fn read_priority(row: &Row) -> Result<Priority, StoreError> {
    let word: &str = column(row, "priority")?;
    Priority::from_word(word).ok_or_else(|| StoreError::Broken(format!("a task has the priority {word:?}")))
}

pub(super) fn column<'a, T: FromSql<'a>>(
    row: &'a Row,
    name: impl tokio_postgres::row::RowIndex + std::fmt::Display,
) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Broken(error.to_string()))
}

/// A statement that must return a row returned none.
pub(super) fn no_row() -> StoreError {
    StoreError::Broken("a statement that returns a row returned none".to_owned())
}
