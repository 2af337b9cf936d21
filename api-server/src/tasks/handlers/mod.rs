//! The requests about tasks.

pub mod batch;
pub mod read;
pub mod write;

use std::sync::Arc;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// Their routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(read::list, write::create))
        .routes(routes!(read::search))
        .routes(routes!(read::summary))
        .routes(routes!(batch::batch))
        .routes(routes!(read::get, write::update, write::delete))
}
