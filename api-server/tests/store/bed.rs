//! A store to test on, and what tests say often.

use std::{collections::HashMap, path::PathBuf, sync::Mutex, time::Duration};

use serde_json::json;
use task_api_domain::{
    id::TaskId,
    mark::Mark,
    task::{Filter, NewTask, Priority, Status, Task, TaskPatch, Version},
    user::{Email, Registration},
    validation::Form,
};
use task_api_store::{
    Idempotency, IdempotencyKey, ListRequest, NewUser, Operation, Outcome, PostgresOptions, ShardConfig, SqliteConfig,
    Store, StoreError, Synchronous, Writes,
};
use tokio::sync::OnceCell;

use crate::common::{PASSWORD, Services, eventually, unique};

pub(crate) struct Bed {
    pub(crate) store: Store,
    pub(crate) shards: i64,
    wrote: Mutex<HashMap<i64, Mark>>,
    directory: Option<PathBuf>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

impl Bed {
    pub(crate) async fn on(store: Store, shards: i64) -> Self {
        eventually("the store is prepared", async || {
            store.prepare().await.inspect_err(|error| eprintln!("{error}")).ok()
        })
        .await;
        Self { store, shards, wrote: Mutex::default(), directory: None }
    }

    pub(crate) async fn sqlite() -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("store"));
        std::fs::create_dir_all(&directory).unwrap();
        let config = SqliteConfig { file: directory.join("tasks.db"), synchronous: Synchronous::Normal };
        let mut bed = Self::on(Store::sqlite(&config, Writes::default()).unwrap(), 1).await;
        bed.directory = Some(directory);
        bed
    }

    /// One database, with a replica.
    pub(crate) async fn postgres(test: &str) -> Option<Self> {
        let services = Services::find(test)?;
        let replicas = Some(services.replicas.parse().unwrap());
        let first = ShardConfig { primary: services.primary.parse().unwrap(), replicas };
        let options = PostgresOptions { first, others: Vec::new(), retention: None };
        Some(Self::on(Store::postgres(&options, Writes::default()), 1).await)
    }

    /// Two databases, which all tests share; their users differ.
    pub(crate) async fn two_shards(test: &str) -> Option<Self> {
        static DATABASES: OnceCell<[String; 2]> = OnceCell::const_new();
        let services = Services::find(test)?;
        let databases = DATABASES
            .get_or_init(async || {
                [services.clone().with_database("shard").await, services.with_database("shard").await]
                    .map(|services| services.primary)
            })
            .await;
        Some(Self::on(Store::postgres(&options(databases, None), Writes::default()), 2).await)
    }

    /// A new user.
    pub(crate) async fn user(&self) -> i64 {
        self.account().await.0
    }

    pub(crate) async fn account(&self) -> (i64, Email) {
        let email = format!("{}@example.com", unique("Store"));
        let form = Form::body(json!({"email": email, "password": PASSWORD})).unwrap();
        let email = Registration::from_form(form).unwrap().email;
        (self.register(email.clone()).await.unwrap(), email)
    }

    pub(crate) async fn register(&self, email: Email) -> Result<i64, StoreError> {
        let user = NewUser { email, name: None, password_hash: "a hash".to_owned() };
        let written = self.store.create_user(&user).await?;
        self.remember(written.value.id, written.mark);
        Ok(written.value.id)
    }

    /// What a user wrote last, as the session store remembers it.
    pub(crate) fn wrote(&self, user_id: i64) -> Option<Mark> {
        self.wrote.lock().unwrap().get(&user_id).copied()
    }

    /// Remembers what a user wrote.
    pub(crate) fn remember(&self, user_id: i64, mark: Option<Mark>) {
        let mut wrote = self.wrote.lock().unwrap();
        let last = mark.max(wrote.get(&user_id).copied());
        wrote.extend(last.map(|last| (user_id, last)));
    }

    pub(crate) async fn apply(&self, user_id: i64, operations: Vec<Operation>) -> Vec<Outcome> {
        let written = self.store.apply(user_id, operations, None).await.unwrap();
        self.remember(user_id, written.mark);
        written.value
    }

    pub(crate) async fn create(&self, user_id: i64, title: &str) -> Task {
        match self.apply(user_id, vec![create(title)]).await.pop() {
            Some(Outcome::Created(task)) => task,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn list(&self, user_id: i64) -> Vec<Task> {
        let all = ListRequest { filter: Filter::default(), after: None, limit: 1000 };
        self.store.list_tasks(user_id, &all, self.wrote(user_id)).await.unwrap().tasks
    }
}

pub(crate) fn options(databases: &[String], retention: Option<Duration>) -> PostgresOptions {
    let shard = |url: &String| ShardConfig { primary: url.parse().unwrap(), replicas: None };
    let mut shards = databases.iter().map(shard);
    PostgresOptions { first: shards.next().unwrap(), others: shards.collect(), retention }
}

pub(crate) fn new_task(title: &str) -> NewTask {
    let (status, priority) = (Status::Pending, Priority::Medium);
    NewTask { title: title.to_owned(), description: None, status, priority, due_date: None }
}

pub(crate) fn create(title: &str) -> Operation {
    Operation::Create(new_task(title))
}

pub(crate) fn retitle(id: TaskId, title: &str, expected: Option<Version>) -> Operation {
    let patch = TaskPatch { title: Some(title.to_owned()), ..TaskPatch::default() };
    Operation::Update { id, patch, expected }
}

pub(crate) fn id(task: &Task) -> TaskId {
    TaskId::new(task.id).unwrap()
}

pub(crate) fn idempotency(fingerprint: u8) -> Idempotency {
    Idempotency { key: IdempotencyKey::new("the-same-for-every-user").unwrap(), fingerprint: [fingerprint; 32] }
}
