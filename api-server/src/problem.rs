//! RFC 9457 problems: what every answer that is not a success looks like.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use task_api_domain::validation::FieldError;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// The content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// How soon another password may be tried where too many were wrong.
pub const ANOTHER_TRY: Duration = Duration::from_secs(30);

/// A kind of problem: clients tell problems apart by its `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// A name, never to be looked up.
    pub urn: &'static str,
    /// The status that it always comes with.
    pub status: StatusCode,
    /// The same in words.
    pub title: &'static str,
}

macro_rules! kinds {
    ($($name:ident: $slug:literal, $status:ident, $title:literal;)+) => {
        impl Kind {
            $(#[doc = $title] pub const $name: Self = Self {
                urn: concat!("urn:taskplatform:problem:", $slug),
                status: StatusCode::$status,
                title: $title,
            };)+

            /// All that there are.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

kinds! {
    BAD_REQUEST: "bad-request", BAD_REQUEST, "The request can't be read";
    UNAUTHORIZED: "unauthorized", UNAUTHORIZED, "No live session";
    WRONG_CREDENTIALS: "wrong-credentials", UNAUTHORIZED, "Wrong e-mail or password";
    CROSS_SITE: "cross-site", FORBIDDEN, "A page of another site sent the cookie";
    QUOTA_EXCEEDED: "quota-exceeded", FORBIDDEN, "The user has as much as they may";
    NOT_FOUND: "not-found", NOT_FOUND, "Nothing is here";
    METHOD_NOT_ALLOWED: "method-not-allowed", METHOD_NOT_ALLOWED, "The path is there, the method is not";
    REQUEST_TIMEOUT: "request-timeout", REQUEST_TIMEOUT, "The body did not arrive in time";
    EMAIL_TAKEN: "email-taken", CONFLICT, "Another account has this e-mail";
    PRECONDITION_FAILED: "precondition-failed", PRECONDITION_FAILED, "The task has changed since it was read";
    BODY_TOO_LARGE: "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    URI_TOO_LONG: "uri-too-long", URI_TOO_LONG, "The address is too long";
    UNSUPPORTED_MEDIA_TYPE: "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body is not JSON";
    INVALID: "invalid", UNPROCESSABLE_ENTITY, "The request does not pass validation";
    KEY_REUSED: "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    HEADERS_TOO_LARGE: "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large";
    TOO_MUCH_AT_ONCE: "too-much-at-once", TOO_MANY_REQUESTS, "The user has as much under way as they may";
    TOO_MANY_TRIES: "too-many-tries", TOO_MANY_REQUESTS, "Too many wrong passwords for this account";
    INTERNAL: "internal", INTERNAL_SERVER_ERROR, "A mistake in the API";
    UNAVAILABLE: "unavailable", SERVICE_UNAVAILABLE, "This instance or a dependency can't answer now";
}

impl PartialSchema for Kind {
    fn schema() -> RefOr<Schema> {
        let meanings =
            Self::ALL.iter().map(|kind| format!("- `{}` ({}): {}", kind.urn, kind.status.as_u16(), kind.title));
        let description = meanings.collect::<Vec<_>>().join("\n");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|kind| kind.urn)))
            .description(Some(description))
            .into()
    }
}

impl ToSchema for Kind {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ProblemKind")
    }
}

/// Why a request, or an operation of a batch, did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is. This names it and can't be looked up.
    #[serde(rename = "type", serialize_with = "urn")]
    pub kind: Kind,
    /// The kind in words.
    #[schema(example = "The request does not pass validation")]
    pub title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    pub status: u16,
    /// What is wrong this time, and the way out.
    #[schema(example = "the request does not pass validation; see errors")]
    pub detail: Cow<'static, str>,
    /// Where `type` is `…:invalid`: what is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, min_items = 1)]
    pub errors: Vec<FieldError>,
    /// The header `x-request-id` once more: it finds the request in the log. Results of a batch don't repeat it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
}

fn urn<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.urn)
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>, errors: Vec<FieldError>) -> Self {
        let (title, status) = (kind.title, kind.status.as_u16());
        Self { kind, title, status, detail: detail.into(), errors, request_id: None }
    }

    fn body(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.kind.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        match self.kind {
            Kind::UNAUTHORIZED | Kind::WRONG_CREDENTIALS => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::TOO_MANY_TRIES => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(ANOTHER_TRY.as_secs()));
            }
            Kind::UNAVAILABLE | Kind::TOO_MUCH_AT_ONCE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the request's id into the answer's body, if it is a problem. Handlers don't know the id.
pub fn name_request(response: &mut Response, id: &HeaderValue) {
    let Some(mut problem) = response.extensions_mut().remove::<Problem>() else { return };
    problem.request_id = id.to_str().ok().map(str::to_owned);
    let body = problem.body();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    // The answer to HEAD has none.
    if !http_body::Body::is_end_stream(response.body()) {
        *response.body_mut() = Body::from(body);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let urns: HashSet<_> = Kind::ALL.iter().map(|kind| kind.urn).collect();
        assert_eq!(urns.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.status.is_client_error() || kind.status.is_server_error()));
    }

    #[tokio::test]
    async fn a_problem_carries_its_requests_id() {
        let mut response = Problem::new(Kind::NOT_FOUND, "gone", Vec::new()).into_response();
        name_request(&mut response, &HeaderValue::from_static("abc"));
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({"type": "urn:taskplatform:problem:not-found", "title": "Nothing is here",
            "status": 404, "detail": "gone", "request_id": "abc"});
        assert_eq!(body, expected);
    }
}
