//! What answers on each port.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::header,
    response::IntoResponse,
    routing::get,
};

use crate::{
    app::App,
    error::{ApiError, StartError},
    http::MAX_BODY,
    metrics,
    middleware::MiddlewareLayer,
    routes,
    server::probes,
};

/// The API.
pub fn api(app: Arc<App>) -> Result<Router, StartError> {
    Ok(routes::api()?.layer(DefaultBodyLimit::max(MAX_BODY)).layer(MiddlewareLayer(Arc::clone(&app))).with_state(app))
}

/// What answers where more would be too much: probes, since this instance lives, and that there are too many of `what`.
pub fn refusing(app: Arc<App>, what: &'static str) -> Router {
    Router::from(probes::routes())
        .fallback(async move || ApiError::unavailable(format!("too many {what} at once; try again")))
        .layer(MiddlewareLayer(Arc::clone(&app)))
        .with_state(app)
}

/// `/metrics`, and why this instance is not ready, on a port that no user reaches.
pub fn metrics(app: Arc<App>) -> Router {
    let render = async |State(app): State<Arc<App>>| {
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.render(app.load())).into_response()
    };
    Router::new()
        .route("/metrics", get(render))
        .route("/ready", get(probes::ready_or_why))
        .fallback(|| async { ApiError::NotFound })
        .with_state(app)
}
