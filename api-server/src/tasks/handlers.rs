//! The requests about tasks.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    App,
    auth::CurrentUser,
    error::ApiError,
    http::{JsonBody, query::QueryForm},
    id::TaskId,
    store::{ListRequest, Operation, Outcome},
    tasks::{
        model::{ListQuery, NewTask, Task, TaskPatch},
        service::Page,
    },
};

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
pub async fn list(State(app): State<Arc<App>>, user: CurrentUser, query: QueryForm) -> Result<Response, ApiError> {
    let result = page(&app, &user, query).await;
    app.metrics.task_operation("list", &result);
    result.map(|page| json(page.body))
}

async fn page(app: &App, user: &CurrentUser, query: QueryForm) -> Result<Page, ApiError> {
    let ListQuery { filter, limit, cursor } = ListQuery::from_form(query.0)?;
    let after = match cursor {
        None => None,
        Some(cursor) => Some(app.cursors.open(user.id, filter, &cursor).ok_or(ApiError::BadRequest(
            "this cursor was not issued for this list; leave it out to begin at the newest task".into(),
        ))?),
    };
    let request = ListRequest { filter, after, limit: i64::from(limit) };
    Ok(app.tasks.list(user.id, &request, |position| app.cursors.seal(user.id, filter, position)).await?)
}

/// `GET /api/tasks/{id}`
pub async fn get(State(app): State<Arc<App>>, user: CurrentUser, id: TaskId) -> Result<Response, ApiError> {
    let result = async { app.tasks.get(user.id, id).await?.ok_or(ApiError::NotFound) }.await;
    app.metrics.task_operation("get", &result);
    result.map(|task| json(task.body))
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
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
    let mut written = app.tasks.apply(user.id, vec![operation], None).await?;
    match written.value.pop() {
        Some(Outcome::Created(task) | Outcome::Updated(task)) => Ok(Some(task)),
        Some(Outcome::Deleted(_)) => Ok(None),
        Some(Outcome::NotFound | Outcome::Conflict) | None => Err(ApiError::NotFound),
    }
}
