//! Whether this instance lives, and whether it can do its work.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, header},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, error::ApiError};

/// Their routes. They are answered before anything else is.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// How probes' requests begin.
const REQUESTS: [&str; 4] = ["GET /api/health ", "GET /api/ready ", "HEAD /api/health ", "HEAD /api/ready "];
/// So much of a request tells whether it is a probe.
pub const LONGEST: usize = "HEAD /api/health ".len();

/// Whether a request that begins with `beginning` is a probe.
pub fn is_one(beginning: &[u8]) -> bool {
    REQUESTS.iter().any(|request| beginning.starts_with(request.as_bytes()))
}

/// It is well.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `ready`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// What was true just now need not be true again.
const NO_STORE: [(HeaderName, HeaderValue); 1] = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

type Probed = ([(HeaderName, HeaderValue); 1], Json<Health>);

/// Tells whether this instance lives
///
/// It asks nothing but the process itself. 503 while the process stops.
#[utoipa::path(get, path = "/api/health", tag = "health", responses((status = 200, description = "It lives", body = Health)))]
pub async fn health(State(app): State<Arc<App>>) -> Result<Probed, ApiError> {
    if app.lifecycle.is_draining() {
        return Err(ApiError::unavailable("this instance stops; use another"));
    }
    Ok((NO_STORE, Json(Health { status: "ok" })))
}

/// Tells whether this instance can do its work
///
/// It writes and reads back a row and a session. 503 where one of them fails; which one, the log tells, and `/ready` on the port of the metrics.
#[utoipa::path(get, path = "/api/ready", tag = "health", responses((status = 200, description = "It is ready", body = Health)))]
pub async fn ready(State(app): State<Arc<App>>) -> Result<Probed, ApiError> {
    match app.readiness.check(&app.lifecycle, &app.store, &app.sessions).await {
        Ok(()) => Ok((NO_STORE, Json(Health { status: "ready" }))),
        Err(cause) => {
            Err(ApiError::Unavailable { detail: "this instance can't do its work now; its log says why".into(), cause })
        }
    }
}

/// The same for those who may know what fails.
pub async fn ready_or_why(State(app): State<Arc<App>>) -> Result<Probed, ApiError> {
    app.readiness.check(&app.lifecycle, &app.store, &app.sessions).await.map_err(ApiError::unavailable)?;
    Ok((NO_STORE, Json(Health { status: "ready" })))
}
