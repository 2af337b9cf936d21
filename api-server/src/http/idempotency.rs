//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a client that got no answer sends the same request with the same
//! key again, and it is done once.
//!
//! Requests that make tasks take one. Others need none: PATCH and DELETE repeat themselves harmlessly, and `If-Match` finds out that they
//! were done. A second registration is refused with 409, and the client, which knows the password, logs in; a second log-in is
//! just another session, and a stored answer would keep a token that nobody may read.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, Method, Uri, request::Parts},
};
use sha2::{Digest, Sha256};
use task_api_store::{Idempotency, IdempotencyKey};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use crate::{error::ApiError, http::parameters::header_parameter};

/// The request's header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells that the answer is that of an earlier request.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The key of a request, if it has one, and what the request is but for its body.
#[derive(Debug)]
pub struct Key {
    given: Option<IdempotencyKey>,
    method: Method,
    uri: Uri,
}

impl Key {
    /// Key and fingerprint of the request with this body.
    pub fn with_body(self, body: &[u8]) -> Option<Idempotency> {
        let key = self.given?;
        let mut digest = Sha256::new();
        digest.update(format!("{} {}\n", self.method, self.uri.path()));
        digest.update(body);
        Some(Idempotency { key, fingerprint: digest.finalize().into() })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let values: Vec<&HeaderValue> = parts.headers.get_all(IDEMPOTENCY_KEY).iter().collect();
        let malformed = || ApiError::BadRequest("send one Idempotency-Key of 1 to 255 visible ASCII characters".into());
        let given = match values[..] {
            [] => None,
            [value] => Some(value.to_str().ok().and_then(IdempotencyKey::new).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        };
        Ok(Self { given, method: parts.method.clone(), uri: parts.uri.clone() })
    }
}

impl IntoParams for Key {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "A name for this request that the client makes up, such as a UUID. The same request under the same name is done \
            once, for 24 hours: sent again, it gets the first one's answer.";
        vec![header_parameter("Idempotency-Key", description, "^[!-~]{1,255}$", "8e03978e-40d5-43e8-bc93-6894a57f9324")]
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn key(values: &[&str]) -> Result<Option<Idempotency>, ApiError> {
        let mut request = Request::post("/api/tasks");
        for value in values {
            request = request.header(IDEMPOTENCY_KEY, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        Key::from_request_parts(&mut parts, &()).await.map(|key| key.with_body(b"{}"))
    }

    #[tokio::test]
    async fn one_key_or_none() {
        assert_eq!(key(&[]).await.unwrap(), None);
        assert_eq!(key(&["a"]).await.unwrap().unwrap().key.as_str(), "a");
        for bad in [&["a b"][..], &[""], &["a", "a"]] {
            assert!(matches!(key(bad).await, Err(ApiError::BadRequest(_))), "{bad:?}");
        }
    }

    #[test]
    fn another_body_or_path_is_another_request() {
        let print = |path: &'static str, body: &[u8]| {
            let key = Key { given: IdempotencyKey::new("k"), method: Method::POST, uri: Uri::from_static(path) };
            key.with_body(body).unwrap().fingerprint
        };
        assert_eq!(print("/a", b"x"), print("/a", b"x"));
        assert_ne!(print("/a", b"x"), print("/a", b"y"));
        assert_ne!(print("/a", b"x"), print("/b", b"x"));
    }
}
