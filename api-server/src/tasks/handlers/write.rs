//! Single changes.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use task_api_domain::{
    id::TaskId,
    task::{NewTask, Task, TaskPatch, Version},
};
use task_api_store::{Operation, Outcome};

use crate::{
    app::App,
    auth::CurrentUser,
    error::ApiError,
    http::{
        JsonBody, TaskPath,
        answer::{JSON, json},
        etag::{ETag, IfMatch},
        idempotency::{IDEMPOTENT_REPLAYED, Key},
    },
};

/// Makes a task
#[utoipa::path(
    post, path = "/api/tasks", tag = "tasks", params(Key), request_body = NewTask, security(("bearer" = []), ("cookie" = [])),
    responses((status = 201, description = "The new task", body = Task, headers(
        ("location" = String, description = "Where it is"),
        ("etag" = String, description = "Its state"),
        ("idempotent-replayed" = String, description = "`true`, if this is the answer of an earlier request with this key"),
    )))
)]
pub async fn create(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    key: Key,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let result = async {
        let idempotency = key.with_body(&body.bytes);
        let operation = Operation::Create(NewTask::from_form(body.form)?);
        let written = app.tasks.apply(user.id, vec![operation], idempotency).await?;
        let task = the_task(written.value)?.ok_or(ApiError::NotFound)?;
        Ok((task, written.replayed))
    };
    let result = result.await;
    app.metrics.task_operation("create", &result);
    let (task, replayed) = result?;
    let location = HeaderValue::from_str(&format!("/api/tasks/{}", task.id)).ok();
    let location = location.map(|location| [(header::LOCATION, location)]);
    Ok((StatusCode::CREATED, location, replayed_header(replayed), task_answer(&task)?).into_response())
}

/// Changes a task
///
/// A field that is absent stays, null clears what may be empty. A change that changes nothing leaves `updated_at` and the `ETag` as they are.
#[utoipa::path(
    patch, path = "/api/tasks/{id}", tag = "tasks", params(TaskPath, IfMatch), request_body = TaskPatch,
    security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "The task as it is now", body = Task, headers(("etag" = String, description = "Its state"))))
)]
pub async fn update(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    TaskPath(id): TaskPath,
    condition: IfMatch,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let result = async {
        let patch = TaskPatch::from_form(body.form)?;
        let expected = expected(&app, &user, id, &condition).await?;
        let written = app.tasks.apply(user.id, vec![Operation::Update { id, patch, expected }], None).await?;
        the_task(written.value)?.ok_or(ApiError::NotFound)
    };
    let result = result.await;
    app.metrics.task_operation("update", &result);
    result.and_then(|task| Ok(task_answer(&task)?.into_response()))
}

/// Deletes a task
#[utoipa::path(
    delete, path = "/api/tasks/{id}", tag = "tasks", params(TaskPath, IfMatch), security(("bearer" = []), ("cookie" = [])),
    responses((status = 204, description = "It is gone"))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    TaskPath(id): TaskPath,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let result = async {
        let expected = expected(&app, &user, id, &condition).await?;
        let written = app.tasks.apply(user.id, vec![Operation::Delete { id, expected }], None).await?;
        the_task(written.value).map(|_| StatusCode::NO_CONTENT)
    };
    let result = result.await;
    app.metrics.task_operation("delete", &result);
    result
}

/// The task after the only operation there was; none, if it was deleted.
fn the_task(outcomes: Vec<Outcome>) -> Result<Option<Task>, ApiError> {
    match outcomes.into_iter().next() {
        Some(Outcome::Created(task) | Outcome::Updated(task)) => Ok(Some(task)),
        Some(Outcome::Deleted(_)) => Ok(None),
        Some(Outcome::Changed(..)) => {
            Err(ApiError::Internal("the store does not tell the only task that it changed".to_owned()))
        }
        Some(Outcome::NotFound) => Err(ApiError::NotFound),
        Some(Outcome::Conflict) => Err(ApiError::PreconditionFailed),
        None => Err(ApiError::Internal("the store tells no outcome of an operation".to_owned())),
    }
}

/// The version that a change expects. Where several would do, it is the one that the task has.
async fn expected(app: &App, user: &CurrentUser, id: TaskId, condition: &IfMatch) -> Result<Option<Version>, ApiError> {
    let Some(versions) = condition.versions() else { return Ok(None) };
    match versions[..] {
        [] => Ok(Some(Version::OF_NONE)),
        [version] => Ok(Some(Version(version))),
        _ => {
            let task = app.tasks.get(user.id, id).await?.ok_or(ApiError::NotFound)?;
            Ok(Some(task.version).filter(|version| versions.contains(&version.0)).or(Some(Version::OF_NONE)))
        }
    }
}

/// A task and its tag.
fn task_answer(task: &Task) -> Result<impl IntoResponse, ApiError> {
    let tag = ETag::of_version(task.version.0).to_header();
    Ok((JSON, [(header::ETAG, tag)], json(task)?))
}

/// Tells that an answer was given before.
pub(super) fn replayed_header(replayed: bool) -> Option<[(header::HeaderName, HeaderValue); 1]> {
    replayed.then_some([(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))])
}
