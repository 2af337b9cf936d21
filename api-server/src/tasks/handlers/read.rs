//! Lists, single tasks, searches and counts.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use jiff::Timestamp;
use serde::Serialize;
use task_api_domain::{
    position::Position,
    search::SearchQuery,
    summary::Summary,
    task::{Priority, Status, Task},
};
use task_api_store::{ListRequest, SearchRequest};
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::CurrentUser,
    error::ApiError,
    http::{
        TaskPath,
        answer::{Found, json},
        etag::{ETag, IfNoneMatch},
        query::QueryForm,
    },
    tasks::{
        cursor::Listing,
        query::{ListQuery, SearchTasks},
    },
};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    /// Newest first.
    items: Vec<Task>,
    /// What to send as `cursor` for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Lists tasks
///
/// Newest first. Tasks that are made or deleted meanwhile neither shift nor repeat what the next pages show.
#[utoipa::path(
    get, path = "/api/tasks", tag = "tasks", params(ListQuery, IfNoneMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "A page of the list", body = Page))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    known: IfNoneMatch,
    query: QueryForm,
) -> Result<Response, ApiError> {
    let result = async {
        let query = ListQuery::from_form(query.0)?;
        let filter = query.filter();
        let listing = Listing::Tasks(filter);
        let after = open(&app, &user, &listing, query.cursor.as_deref())?;
        let request = ListRequest { filter, after, limit: i64::from(query.limit) };
        let page = app.tasks.list(user.id, &request, |end| app.cursors.seal(user.id, &listing, end)).await?;
        Ok(Found { tag: ETag::of_hash(page.tag), body: page.body })
    };
    let result = result.await;
    app.metrics.task_operation("list", &result);
    result.map(|found: Found| found.answer(&known))
}

/// Searches title and description
///
/// Every word must be there, in any of its forms where the store knows English; "words in quotes" in this order; words after a `-` must
/// not. Newest first. A query without any word finds nothing. Words that English has everywhere, such as `the`, count in quotation marks, or
/// where there are no others; in scripts without blanks between words, parts are found, too.
#[utoipa::path(
    get, path = "/api/tasks/search", tag = "tasks", params(SearchTasks, IfNoneMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "A page of what was found", body = Page))
)]
pub async fn search(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    known: IfNoneMatch,
    query: QueryForm,
) -> Result<Response, ApiError> {
    let result = async {
        let SearchTasks { q, limit, cursor } = SearchTasks::from_form(query.0)?;
        let Some(query) = SearchQuery::parse(&q) else {
            return Found::tagged(&Page { items: Vec::new(), next_cursor: None });
        };
        let listing = Listing::Search(&query);
        let after = open(&app, &user, &listing, cursor.as_deref())?;
        let request = SearchRequest { query: query.clone(), after, limit: i64::from(limit) };
        let page = app.tasks.search(user.id, &request, |end| app.cursors.seal(user.id, &listing, end)).await?;
        Ok(Found { tag: ETag::of_hash(page.tag), body: page.body })
    };
    let result = result.await;
    app.metrics.task_operation("search", &result);
    result.map(|found| found.answer(&known))
}

fn open(
    app: &App,
    user: &CurrentUser,
    listing: &Listing<'_>,
    cursor: Option<&str>,
) -> Result<Option<Position>, ApiError> {
    let foreign = || {
        ApiError::BadRequest(
            "this cursor was not issued for this list; leave it out to begin at the newest task".into(),
        )
    };
    cursor.map(|cursor| app.cursors.open(user.id, listing, cursor).ok_or_else(foreign)).transpose()
}

/// Gets a task
#[utoipa::path(
    get, path = "/api/tasks/{id}", tag = "tasks", params(TaskPath, IfNoneMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "The task", body = Task))
)]
pub async fn get(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    TaskPath(id): TaskPath,
    known: IfNoneMatch,
) -> Result<Response, ApiError> {
    let result = async {
        let task = app.tasks.get(user.id, id).await?.ok_or(ApiError::NotFound)?;
        Ok(Found { tag: ETag::of_version(task.version.0), body: task.body })
    };
    let result = result.await;
    app.metrics.task_operation("get", &result);
    result.map(|found: Found| found.answer(&known))
}

/// How many tasks there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counts {
    /// All of them.
    total: u64,
    /// How far they are.
    by_status: ByStatus,
    /// How much they matter.
    by_priority: ByPriority,
}

/// Counts by status.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the statuses")]
pub struct ByStatus {
    pub pending: u64,
    pub in_progress: u64,
    pub completed: u64,
}

/// Counts by priority.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the priorities")]
pub struct ByPriority {
    pub low: u64,
    pub medium: u64,
    pub high: u64,
    pub urgent: u64,
}

/// Counts, and when they were right.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatedCounts {
    #[serde(flatten)]
    counts: Counts,
    /// When it was so. Where the counts come from a summary that is renewed from time to time, this is when it last was.
    as_of: Timestamp,
}

impl DatedCounts {
    fn of(summary: &Summary) -> Self {
        let status = |status| summary.with_status(status);
        let priority = |priority| summary.with_priority(priority);
        let counts = Counts {
            total: summary.total(),
            by_status: ByStatus {
                pending: status(Status::Pending),
                in_progress: status(Status::InProgress),
                completed: status(Status::Completed),
            },
            by_priority: ByPriority {
                low: priority(Priority::Low),
                medium: priority(Priority::Medium),
                high: priority(Priority::High),
                urgent: priority(Priority::Urgent),
            },
        };
        Self { counts, as_of: summary.as_of }
    }
}

/// Counts tasks by status and by priority
#[utoipa::path(
    get, path = "/api/tasks/summary", tag = "tasks", params(IfNoneMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "The counts", body = DatedCounts))
)]
pub async fn summary(State(app): State<Arc<App>>, user: CurrentUser, known: IfNoneMatch) -> Result<Response, ApiError> {
    let result = async {
        let dated = DatedCounts::of(&app.tasks.summary(user.id).await?);
        // The same counts at another time are the same to who reads them.
        Ok(Found { tag: ETag::of_meaning(&json(&dated.counts)?), body: json(&dated)? })
    };
    let result = result.await;
    app.metrics.task_operation("summary", &result);
    result.map(|found: Found| found.answer(&known))
}
