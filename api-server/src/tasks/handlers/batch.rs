//! Many changes in one request.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use task_api_domain::task::{Task, Version};
use task_api_store::Outcome;
use utoipa::ToSchema;

use super::write::replayed_header;
use crate::{
    app::App,
    auth::CurrentUser,
    error::ApiError,
    http::{
        JsonBody,
        answer::{JSON, json},
        etag::ETag,
        idempotency::Key,
    },
    problem::Problem,
    tasks::batch::Batch,
};

/// What became of every operation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// As many as operations, in their order.
    results: Vec<OperationResult>,
}

/// What became of one operation: what it would have been answered as a request of its own.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationResult {
    /// The status.
    #[schema(minimum = 200, maximum = 599, example = 201)]
    status: u16,
    /// The task's state, where there is a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "\"1\"")]
    etag: Option<String>,
    /// The task as it is now. Left out of an update where those before it in the answer have a megabyte of text: it can be got by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    task: Option<Task>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<Problem>,
}

impl OperationResult {
    fn task(status: u16, task: Task) -> Self {
        let etag = ETag::of_version(task.version.0).to_string();
        Self { status, etag: Some(etag), task: Some(task), error: None }
    }
}

impl From<Outcome> for OperationResult {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Created(task) => Self::task(201, task),
            Outcome::Updated(task) => Self::task(200, task),
            Outcome::Changed(_, Version(version)) => {
                Self { status: 200, etag: Some(ETag::of_version(version).to_string()), task: None, error: None }
            }
            Outcome::Deleted(_) => Self { status: 204, etag: None, task: None, error: None },
            Outcome::NotFound => ApiError::NotFound.into(),
            Outcome::Conflict => ApiError::PreconditionFailed.into(),
        }
    }
}

impl From<ApiError> for OperationResult {
    fn from(error: ApiError) -> Self {
        let problem = Problem::from(error);
        Self { status: problem.status, etag: None, task: None, error: Some(problem) }
    }
}

/// Makes, changes and deletes up to 100 tasks
///
/// In order, each on its own: one that fails has its result and does not stop the others. Those that succeed are written together. What an
/// operation says about its task is judged like the request that would do it alone; a request whose operations can't be told apart is
/// refused whole.
#[utoipa::path(
    post, path = "/api/tasks/batch", tag = "tasks", params(Key), request_body = Batch, security(("bearer" = []), ("cookie" = [])),
    responses((status = 200, description = "A result for each", body = Results, headers(
        ("idempotent-replayed" = String, description = "`true`, if this is the answer of an earlier request with this key"),
    )))
)]
pub async fn batch(
    State(app): State<Arc<App>>,
    user: CurrentUser,
    key: Key,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let result = async {
        let idempotency = key.with_body(&body.bytes);
        let batch = Batch::from_form(body.form)?;
        let names = batch.names();
        let requests = batch.operations();
        let operations = requests.iter().filter_map(|request| request.as_ref().ok().cloned()).collect();
        let written = app.tasks.apply(user.id, operations, idempotency).await?;
        let mut outcomes = written.value.into_iter();
        let lost = || ApiError::Internal("the store tells no outcome of an operation".to_owned());
        let results = requests.into_iter().map(|request| match request {
            Ok(_) => outcomes.next().map(OperationResult::from).ok_or_else(lost),
            Err(error) => Ok(error.into()),
        });
        let results = results.collect::<Result<Vec<_>, ApiError>>()?;
        for (name, result) in names.into_iter().zip(&results) {
            app.metrics.task_operation_in_batch(name, result.error.is_none());
        }
        Ok((Results { results }, written.replayed))
    };
    let result = result.await;
    app.metrics.task_operation("batch", &result);
    let (results, replayed) = result?;
    Ok((JSON, replayed_header(replayed), json(&results)?).into_response())
}
