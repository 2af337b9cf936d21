//! What can be asked and done about tasks. Answers come from [`crate::views`] where they can, else from the store, and are ready to
//! be sent either way.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use task_api_domain::{id::TaskId, position::Position, summary::Summary, task::Version};
use task_api_resilience::memory::Memory;
use task_api_store::{
    Idempotency, ListRequest, Operation, Outcome, PIECE_BYTES, Piece, SearchRequest, Store, StoreError, Written,
};
use task_api_telemetry::{
    context,
    trace::{span, traced},
};
use tracing::Span;

use crate::views::{Entry, Views};

/// How many times the bytes of its texts a piece takes in memory: as it comes, as tasks, as JSON, and as an answer.
const PIECE_COST: usize = 4;

/// A page of tasks: `{"items": […], "next_cursor": …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its JSON.
    pub body: Bytes,
    /// Differs from those of other answers to the same request. Every instance gives the same answer the same.
    pub tag: u64,
}

/// A task as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskBody {
    /// Its JSON.
    pub body: Bytes,
    /// Which state of the task it is.
    pub version: Version,
}

/// See the module.
#[derive(Debug)]
pub struct Tasks {
    store: Arc<Store>,
    views: Arc<Views>,
    memory: Memory,
}

impl Tasks {
    /// Tasks in `store`, seen through `views` of it. What many of them take at once is `memory`'s.
    pub fn new(store: Arc<Store>, views: Arc<Views>, memory: Memory) -> Self {
        Self { store, views, memory }
    }

    /// Room for as many tasks as come together.
    async fn hold_piece(&self, user_id: i64) -> Result<(), StoreError> {
        context::keep(self.memory.hold(Some(user_id), PIECE_COST * PIECE_BYTES).await?);
        Ok(())
    }

    /// A piece of a user's tasks, newest first. `seal` makes the cursor of what follows it.
    pub async fn list(
        &self,
        user_id: i64,
        request: &ListRequest,
        seal: impl Fn(Position) -> String,
    ) -> Result<Page, StoreError> {
        let ListRequest { filter, after, limit } = *request;
        let limit = usize::try_from(limit).unwrap_or_default();
        let shown = self.views.read(user_id, |view| {
            let mut shown: Vec<&Entry> = view.list(filter, after).take(limit + 1).collect();
            let more = shown.len() > limit;
            shown.truncate(limit);
            page(&shown, more, &seal)
        });
        if let Some(page) = shown.await? {
            return Ok(page);
        }
        self.hold_piece(user_id).await?;
        let found = self.store.list_tasks(user_id, request, self.views.wrote(user_id).await).await?;
        page_of(found, seal)
    }

    /// A piece of what a search finds, newest first. `seal` makes the cursor of what follows it.
    pub async fn search(
        &self,
        user_id: i64,
        request: &SearchRequest,
        seal: impl Fn(Position) -> String,
    ) -> Result<Page, StoreError> {
        let known = self.views.read(user_id, |view| {
            let changes = view.changes();
            view.searched(request).map(|(found, more)| page(&found, more, &seal)).ok_or(changes)
        });
        let known = known.await?;
        if let Some(Ok(page)) = known {
            return Ok(page);
        }
        // Where there is a view, the writes that it has to show are known here.
        let wrote = match known.as_ref().and_then(|_| self.views.shown(user_id)) {
            Some(mark) => Some(mark),
            None => self.views.wrote(user_id).await,
        };
        self.hold_piece(user_id).await?;
        let found = self.store.search_tasks(user_id, request, wrote).await?;
        if let Some(Err(changes)) = known {
            self.views.remember_search(user_id, request, &found, changes);
        }
        page_of(found, seal)
    }

    /// A task, if it is this user's.
    pub async fn get(&self, user_id: i64, id: TaskId) -> Result<Option<TaskBody>, StoreError> {
        if let Some(found) = self.views.read(user_id, |view| view.get(id).map(task)).await? {
            return Ok(found);
        }
        let found = self.store.task(user_id, id, self.views.wrote(user_id).await).await?;
        found.map(|found| Ok(task(&Entry::new(&found)?))).transpose()
    }

    /// How many tasks a user has.
    pub async fn summary(&self, user_id: i64) -> Result<Summary, StoreError> {
        match self.views.read(user_id, |view| view.summary()).await? {
            Some(summary) => Ok(summary),
            None => self.store.summary(user_id).await,
        }
    }

    /// Looks after the views for as long as the process runs.
    pub async fn keep(&self) {
        self.views.keep().await;
    }

    /// Nothing is written here any more.
    pub async fn leave(&self) {
        self.views.leave().await;
    }

    /// All changes of a request: see [`Store::apply`].
    pub async fn apply(
        &self,
        user_id: i64,
        operations: Vec<Operation>,
        idempotency: Option<Idempotency>,
    ) -> Result<Written<Vec<Outcome>>, StoreError> {
        if operations.len() > 1 {
            self.hold_piece(user_id).await?;
        }
        let span = span_of(&operations);
        traced(span, self.views.write(user_id, operations, idempotency)).await
    }
}

/// The span of a request's changes (plan section 5.2).
fn span_of(operations: &[Operation]) -> Span {
    match operations {
        [Operation::Create(task)] => {
            span!("createTask", task.priority = task.priority.as_str(), task.status = task.status.as_str())
        }
        [Operation::Update { .. }] => span!("updateTask"),
        [Operation::Delete { .. }] => span!("deleteTask"),
        _ => span!("changeTasks", task.operations = operations.len()),
    }
}

fn task(entry: &Entry) -> TaskBody {
    TaskBody { body: Bytes::copy_from_slice(entry.json().as_bytes()), version: entry.version }
}

/// What the store has found. Each task goes as soon as it is written.
fn page_of(found: Piece, seal: impl Fn(Position) -> String) -> Result<Page, StoreError> {
    let entries = found.tasks.into_iter().map(|task| Entry::new(&task)).collect::<Result<Vec<_>, _>>()?;
    Ok(page(&entries.iter().collect::<Vec<_>>(), found.more, seal))
}

/// These tasks, and a cursor if there are more.
fn page(shown: &[&Entry], more: bool, seal: impl Fn(Position) -> String) -> Page {
    let mut tag = DefaultHasher::new();
    let json: usize = shown.iter().map(|entry| entry.json().len() + 1).sum();
    let mut body = String::with_capacity(json + 100);
    body.push_str(r#"{"items":["#);
    for (index, entry) in shown.iter().enumerate() {
        (entry.position.id, entry.version.0).hash(&mut tag);
        if index > 0 {
            body.push(',');
        }
        body.push_str(entry.json());
    }
    body.push_str(r#"],"next_cursor":"#);
    match shown.last().filter(|_| more) {
        None => body.push_str("null"),
        Some(last) => {
            // Nothing in a cursor needs to be escaped.
            body.push('"');
            body.push_str(&seal(last.position));
            body.push('"');
        }
    }
    body.push('}');
    more.hash(&mut tag);
    Page { body: body.into(), tag: tag.finish() }
}
