//! What handlers take from a request, with this API's answers where it is not there, and what every answer carries.

pub mod answer;
pub mod body;
pub mod cookies;
pub mod etag;
pub mod idempotency;
mod parameters;
pub mod query;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use task_api_domain::{
    id::{self, TaskId},
    validation::Form,
};
use task_api_telemetry::context;

use utoipa::{
    IntoParams,
    openapi::{
        KnownFormat, ObjectBuilder, SchemaFormat, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use crate::{app::App, error::ApiError};

/// The most bytes that a body may have.
pub const MAX_BODY: usize = 1 << 20;

/// How many times its size a body takes in memory: as it came, as JSON, as what it says, and as it goes to the store.
const BODY_COST: usize = 6;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody {
    /// Its fields.
    pub form: Form,
    /// As it came.
    pub bytes: Bytes,
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        if content_type(request.headers()) != ContentType::Json {
            return Err(ApiError::UnsupportedMediaType);
        }
        let most = request.body().size_hint().upper().and_then(|most| usize::try_from(most).ok());
        let most = most.unwrap_or(MAX_BODY).min(MAX_BODY);
        let mut held = app.memory.hold(context::user(), BODY_COST * most).await?;
        let read = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, app));
        let bytes = read.await.map_err(|_| ApiError::RequestTimeout)?.map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::TooLarge
            } else {
                ApiError::BadRequest("the body broke off".into())
            }
        })?;
        held.shrink(BODY_COST * bytes.len());
        if !held.is_empty() {
            context::keep(held);
        }
        let body = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::BadRequest(format!("the body is not JSON: {error}").into()))?;
        Ok(Self { form: Form::body(body)?, bytes })
    }
}

/// The id in the path of a task.
#[derive(Clone, Copy, Debug)]
pub struct TaskPath(pub TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = ApiError;

    /// What can't be an id is an id that no task has.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::NotFound)?;
        id.parse().map(Self).map_err(|()| ApiError::NotFound)
    }
}

impl IntoParams for TaskPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .maximum(Some(id::MAX));
        let parameter = ParameterBuilder::new()
            .name("id")
            .parameter_in(ParameterIn::Path)
            .description(Some("The task's id"))
            .schema(Some(schema));
        vec![parameter.build()]
    }
}

/// What a body claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json` or `application/…+json`.
    Json,
    /// Nothing is said.
    Absent,
    /// Something else, such as what a form in a browser sends.
    Other,
}

/// Reads the header `Content-Type`.
pub fn content_type(headers: &HeaderMap) -> ContentType {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return ContentType::Absent };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.strip_prefix("application/") {
        Some(subtype) if subtype == "json" || subtype.ends_with("+json") => ContentType::Json,
        _ => ContentType::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            content_type(&headers)
        };
        assert_eq!(content_type(&HeaderMap::new()), ContentType::Absent);
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert_eq!(read(json), ContentType::Json, "{json}");
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "text/json", "application/jsonp", ""] {
            assert_eq!(read(other), ContentType::Other, "{other}");
        }
    }
}
