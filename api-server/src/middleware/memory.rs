//! The memory of answers, until they are sent.

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use task_api_resilience::memory::Held;
use task_api_telemetry::context;

use super::seen::Seen;
use crate::{app::App, error::ApiError, http::body::KeptBody};

/// Counts the memory of an answer until it is sent. What was changed is told, whatever that takes.
pub(super) async fn hold(app: &App, seen: &Seen, response: Response) -> Result<(Response, Held), ApiError> {
    context::release();
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
    match app.memory.hold(context::user(), bytes).await {
        Ok(held) => Ok((response, held)),
        Err(full) if seen.is_read() => Err(full.into()),
        Err(_) => Ok((response, Held::default())),
    }
}

/// Has an answer keep what it takes.
pub(super) fn keep(response: Response, held: Held) -> Response {
    if held.is_empty() {
        return response;
    }
    response.map(|body| Body::new(KeptBody::new(body, held)))
}
