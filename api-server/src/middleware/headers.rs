//! Headers that every answer carries.
//!
//! `Strict-Transport-Security` is not among them: TLS ends before this process, and who ends it decides for how long.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// Unless the answer says otherwise.
const DEFAULTS: [(HeaderName, HeaderValue); 6] = [
    // An answer is its user's alone, and is asked for again with its ETag.
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    // A cache that serves two sessions must not take one's answer for the other's.
    (header::VARY, HeaderValue::from_static("authorization, cookie")),
    // What is in an answer must never run, nor be shown in a frame of another page.
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Adds those that are missing.
pub(super) fn complete(response: &mut Response) {
    let status = response.status();
    let headers = response.headers_mut();
    if status.is_client_error() || status.is_server_error() {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(value);
    }
}
