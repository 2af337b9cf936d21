//! Answers with a body of JSON.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    error::ApiError,
    http::etag::{ETag, IfNoneMatch},
};

/// What a read found, ready to be sent, and what tells it from other states of the same thing.
#[derive(Clone, Debug)]
pub struct Found {
    /// The JSON.
    pub body: Bytes,
    /// Its tag.
    pub tag: ETag,
}

impl Found {
    /// A body whose tag is made from its bytes.
    pub fn tagged(body: &impl Serialize) -> Result<Self, ApiError> {
        let body = json(body)?;
        Ok(Self { tag: ETag::of_body(&body), body })
    }

    /// 200 with the body, or 304 to a client that has it.
    pub fn answer(self, known: &IfNoneMatch) -> Response {
        let tag = [(header::ETAG, self.tag.to_header())];
        if known.has(&self.tag) {
            return (StatusCode::NOT_MODIFIED, tag).into_response();
        }
        (tag, JSON, Body::from(self.body)).into_response()
    }
}

/// The content type of every answer that is no problem and no page.
pub const JSON: [(header::HeaderName, HeaderValue); 1] =
    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];

/// Any value as JSON.
pub fn json(value: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| ApiError::Internal(format!("can't write JSON: {error}")))
}
