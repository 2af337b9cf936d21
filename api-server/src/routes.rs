//! Every route, and the document that describes them, from the same list.

use std::sync::Arc;

use axum::{
    Extension, Router,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth, docs,
    error::ApiError,
    openapi::{self, Base, Document},
    server::probes,
    tasks,
};

/// The routes of the API.
pub fn api() -> Result<Router<Arc<App>>, serde_json::Error> {
    let (router, api) = OpenApiRouter::with_openapi(Base::openapi())
        .merge(auth::handlers::routes())
        .merge(tasks::handlers::routes())
        .merge(probes::routes())
        .routes(routes!(openapi::document))
        .routes(routes!(docs::page))
        .split_for_parts();
    let document = Document::new(api)?;
    Ok(router
        .merge(docs::files())
        .layer(Extension(Arc::new(document)))
        .method_not_allowed_fallback(other_method)
        .fallback(|| async { ApiError::NotFound }))
}

/// OPTIONS asks what is allowed, and is told by the header `Allow` that axum adds, as whoever uses a method that is not.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::MethodNotAllowed.into_response()
}
