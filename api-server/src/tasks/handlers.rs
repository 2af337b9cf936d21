//! The requests about tasks.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    App,
    auth::CurrentUser,
    error::ApiError,
    http::{JsonBody, query::QueryForm},
    id::TaskId,
    store::{ListRequest, Operation, Outcome},
    tasks::model::{ListQuery, NewTask, Task, TaskPatch},
};

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page {
    items: Vec<Task>,
    /// What to send as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// `POST /api/tasks`
pub async fn create(State(app): State<Arc<App>>, user: CurrentUser, body: JsonBody) -> Result<Response, ApiError> {
    let result = async {
        let task = NewTask::from_form(body.form)?;
        apply(&app, &user, Operation::Create(task)).await?.ok_or(ApiError::NotFound)
    };
    let result = result.await;
    app.metrics.task_operation("create", &result);
    let task = result?;
    let location = HeaderValue::from_str(&format!("/api/tasks/{}", task.id)).ok();
    Ok((StatusCode::CREATED, location.map(|location| [(header::LOCATION, location)]), Json(task)).into_response())
}

/// `GET /api/tasks`
pub async fn list(State(app): State<Arc<App>>, user: CurrentUser, query: QueryForm) -> Result<Json<Page>, ApiError> {
    let result = page(&app, &user, query).await;
    app.metrics.task_operation("list", &result);
    result.map(Json)
}

async fn page(app: &App, user: &CurrentUser, query: QueryForm) -> Result<Page, ApiError> {
    let ListQuery { filter, limit, cursor } = ListQuery::from_form(query.0)?;
    let after = match cursor {
        None => None,
        Some(cursor) => Some(app.cursors.open(user.id, filter, &cursor).ok_or(ApiError::BadRequest(
            "this cursor was not issued for this list; leave it out to begin at the newest task".into(),
        ))?),
    };
    // One more than asked for tells whether there is another page.
    let request = ListRequest { filter, after, limit: i64::from(limit) + 1 };
    let mut items = app.store.list_tasks(user.id, &request, user.wrote).await?;
    let more = items.len() > usize::from(limit);
    items.truncate(usize::from(limit));
    let last = items.last().filter(|_| more);
    let next_cursor = last.map(|task| app.cursors.seal(user.id, filter, task.position()));
    Ok(Page { items, next_cursor })
}

/// `GET /api/tasks/{id}`
pub async fn get(State(app): State<Arc<App>>, user: CurrentUser, id: TaskId) -> Result<Json<Task>, ApiError> {
    let result = async { app.store.task(user.id, id, user.wrote).await?.ok_or(ApiError::NotFound) }.await;
    app.metrics.task_operation("get", &result);
    result.map(Json)
}

/// `PATCH /api/tasks/{id}`
pub async fn update(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    id: TaskId,
    body: JsonBody,
) -> Result<Json<Task>, ApiError> {
    let result = async {
        let patch = TaskPatch::from_form(body.form)?;
        apply(&app, &user, Operation::Update { id, patch, expected: None }).await?.ok_or(ApiError::NotFound)
    };
    let result = result.await;
    app.metrics.task_operation("update", &result);
    result.map(Json)
}

/// `DELETE /api/tasks/{id}`
pub async fn delete(State(app): State<Arc<App>>, user: CurrentUser, id: TaskId) -> Result<StatusCode, ApiError> {
    let result = async {
        apply(&app, &user, Operation::Delete { id, expected: None }).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    let result = result.await;
    app.metrics.task_operation("delete", &result);
    result
}

/// Does one operation, and returns the task that is there after it.
async fn apply(app: &App, user: &CurrentUser, operation: Operation) -> Result<Option<Task>, ApiError> {
    let mut written = app.store.apply(user.id, vec![operation], None).await?;
    app.sessions.remember(user.id, written.mark).await;
    match written.value.pop() {
        Some(Outcome::Created(task) | Outcome::Updated(task)) => Ok(Some(task)),
        Some(Outcome::Deleted(_)) => Ok(None),
        Some(Outcome::NotFound | Outcome::Conflict) | None => Err(ApiError::NotFound),
    }
}
