//! What happens around every request.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::{
    App,
    error::{ApiError, Cause, StartError},
    http::{MAX_BODY, headers, limits},
    metrics, problem, routes,
};

/// The longest that a request may take; every part of it has a shorter limit of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A request that takes longer is logged.
const SLOW: Duration = Duration::from_secs(1);

const REQUEST_ID: &str = "x-request-id";

/// The API.
pub fn api(app: Arc<App>) -> Result<Router, StartError> {
    Ok(routes::api()?
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&app), once_started))
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app))
}

/// `/metrics`, on a port that only Prometheus reaches.
pub fn metrics(app: Arc<App>) -> Router {
    let render = async |State(app): State<Arc<App>>| {
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.render()).into_response()
    };
    Router::new().route("/metrics", get(render)).fallback(|| async { ApiError::NotFound }).with_state(app)
}

async fn once_started(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    if app.lifecycle.is_started() || matched.is_some_and(|path| is_probe(path.as_str())) {
        next.run(request).await
    } else {
        ApiError::unavailable("this instance starts: it waits for its database; try again").into_response()
    }
}

/// Probes come every few seconds; what they find is logged when it changes.
fn is_probe(route: &str) -> bool {
    matches!(route, "/api/health" | "/api/ready")
}

/// Gives the request an id, a time limit, a line in the log and a place in the metrics.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let method = method_label(request.method());
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());

    let (head, body) = request.into_parts();
    let answer = match limits::check(&head) {
        Ok(()) => timeout(REQUEST_TIMEOUT, next.run(Request::from_parts(head, body))).instrument(span.clone()).await,
        Err(error) => Ok(error.into_response()),
    };
    let _in_span = span.enter();
    let mut response =
        answer.unwrap_or_else(|_| ApiError::unavailable("this took too long; try again").into_response());

    problem::name_request(&mut response, &id);
    headers::complete(&mut response);
    response.headers_mut().insert(REQUEST_ID, id);
    if app.lifecycle.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, took) = (response.status(), begun.elapsed());
    let cause = response.extensions().get::<Cause>().map(|Cause(cause)| cause.as_str());
    let status_code = status.as_u16();
    let probe = is_probe(&route);
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(method, path, status = status_code, ?took, cause, "request failed");
    } else if status.is_server_error() && !probe {
        tracing::warn!(method, path, status = status_code, ?took, cause, "request refused");
    } else if took > SLOW {
        tracing::info!(method, path, status = status_code, ?took, "slow request");
    } else {
        tracing::debug!(method, path, status = status_code, ?took, "request");
    }
    app.metrics.request(method, route, status.as_u16(), took);
    response
}

/// The caller's id for the request, or a new one. What does not look like an id does not get into the log.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    request.headers().get(REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        // Without randomness an id is only less unique.
        let id = (getrandom::u64().unwrap_or_default(), getrandom::u64().unwrap_or_default());
        HeaderValue::from_str(&format!("{:016x}{:016x}", id.0, id.1)).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// Clients may make up methods; metrics have room for those that exist.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
