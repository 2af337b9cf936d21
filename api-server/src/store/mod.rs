//! Users and tasks, in PostgreSQL or in SQLite: one interface, two real implementations, one suite of tests.

mod postgres;
mod sqlite;

use std::path::Path;

use thiserror::Error;

use crate::{
    auth::model::{Email, User},
    id::TaskId,
    tasks::{
        cursor::Position,
        model::{Filter, NewTask, Task, TaskPatch},
    },
};

/// Why a store did not do what it should.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another account has this e-mail.
    #[error("an account with this e-mail exists")]
    EmailTaken,
    /// It does not answer, and nothing was changed.
    #[error("{0}")]
    Unavailable(String),
    /// It went away in the middle of a write that must not be repeated blindly.
    #[error("the connection broke during a write: {0}")]
    Unknown(String),
    /// It answers what it should not.
    #[error("{0}")]
    Broken(String),
}

/// The transaction of a write: what a replica must have seen to show the writer what they wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub i64);

/// The result of a write.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// What was written.
    pub value: T,
    /// By which transaction, where a replica could lag behind it.
    pub mark: Option<Mark>,
}

/// An account to be made.
#[derive(Debug)]
pub struct NewUser {
    /// The e-mail to log in with.
    pub email: Email,
    /// What the user wants to be called.
    pub name: Option<String>,
    /// See [`crate::auth::password`].
    pub password_hash: String,
}

/// A piece of a user's tasks, newest first.
#[derive(Clone, Copy, Debug)]
pub struct ListRequest {
    /// Which of them.
    pub filter: Filter,
    /// Only those after this place.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: i64,
}

/// The store.
#[derive(Debug)]
pub struct Store(Kind);

#[derive(Debug)]
enum Kind {
    Postgres(Box<postgres::Postgres>),
    Sqlite(sqlite::Sqlite),
}

/// Calls the same method of whichever store there is.
macro_rules! on {
    ($store:expr, $inner:ident => $call:expr) => {
        match &$store.0 {
            Kind::Postgres($inner) => $call.await,
            Kind::Sqlite($inner) => $call.await,
        }
    };
}

impl Store {
    /// A store in a file, which is made if it is not there.
    pub fn sqlite(path: &Path) -> Result<Self, StoreError> {
        sqlite::Sqlite::open(path).map(Kind::Sqlite).map(Self)
    }

    /// A store on a server. It is connected to when it is first needed.
    pub fn postgres(primary: &tokio_postgres::Config, replicas: Option<&tokio_postgres::Config>) -> Self {
        Self(Kind::Postgres(Box::new(postgres::Postgres::new(primary, replicas))))
    }

    /// Brings the schema up to date. Any number of instances may do this at once.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        on!(self, store => store.prepare())
    }

    /// Makes partitions ahead of time.
    pub async fn keep_up(&self) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Postgres(postgres) => postgres.make_partitions().await,
            Kind::Sqlite(_) => Ok(()),
        }
    }

    /// Writes a row and reads it back.
    pub async fn check(&self) -> Result<(), StoreError> {
        on!(self, store => store.check())
    }

    /// Makes an account.
    pub async fn create_user(&self, user: &NewUser) -> Result<Written<User>, StoreError> {
        on!(self, store => store.create_user(user))
    }

    /// The account with this e-mail (see [`Email::key`]), and its password's hash.
    pub async fn credentials(&self, email_key: &str) -> Result<Option<(User, String)>, StoreError> {
        on!(self, store => store.credentials(email_key))
    }

    /// An account.
    pub async fn user(&self, id: i64, wrote: Option<Mark>) -> Result<Option<User>, StoreError> {
        on!(self, store => store.user(id, wrote))
    }

    /// Makes a task.
    pub async fn create_task(&self, user_id: i64, task: &NewTask) -> Result<Written<Task>, StoreError> {
        on!(self, store => store.create_task(user_id, task))
    }

    /// Some of a user's tasks.
    pub async fn list_tasks(
        &self,
        user_id: i64,
        list: &ListRequest,
        wrote: Option<Mark>,
    ) -> Result<Vec<Task>, StoreError> {
        on!(self, store => store.list_tasks(user_id, list, wrote))
    }

    /// A task, if it is this user's.
    pub async fn task(&self, user_id: i64, id: TaskId, wrote: Option<Mark>) -> Result<Option<Task>, StoreError> {
        on!(self, store => store.task(user_id, id, wrote))
    }

    /// Changes a task, if it is this user's.
    pub async fn update_task(
        &self,
        user_id: i64,
        id: TaskId,
        patch: &TaskPatch,
    ) -> Result<Option<Written<Task>>, StoreError> {
        on!(self, store => store.update_task(user_id, id, patch))
    }

    /// Deletes a task, if it is this user's.
    pub async fn delete_task(&self, user_id: i64, id: TaskId) -> Result<Option<Written<()>>, StoreError> {
        on!(self, store => store.delete_task(user_id, id))
    }
}
