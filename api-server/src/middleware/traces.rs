//! The server's part in a trace, after that of the caller.

use axum::http::{HeaderMap, StatusCode};
use task_api_telemetry::trace::{self, span};
use tracing::{Span, field};

use super::seen::Seen;

/// The span that a request is worked on in.
pub(super) fn begin(seen: &Seen, headers: &HeaderMap) -> Span {
    if seen.is_probe() {
        return Span::none();
    }
    let span = span!(
        "request",
        otel.name = format!("{} {}", seen.method, seen.route.as_str()),
        otel.kind = "server",
        http.request.method = seen.method,
        http.route = seen.route.as_str(),
        url.path = seen.uri.path(),
        http.response.status_code = field::Empty,
    );
    trace::continue_from(&span, headers);
    span
}

/// Tells it how that ended.
pub(super) fn end(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
