//! Whether a worker is alive, and whether it can work.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use task_api_store::Store;
use tokio::time::timeout;

use crate::{error::ApiError, server::lifecycle::Lifecycle};

/// A database that takes longer than this counts as down.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What the answers are found out from.
pub(super) struct Health {
    store: Arc<Store>,
    lifecycle: Arc<Lifecycle>,
}

impl Health {
    pub(super) fn new(store: Arc<Store>, lifecycle: Arc<Lifecycle>) -> Self {
        Self { store, lifecycle }
    }
}

/// `/api/health` and `/api/ready`, as the API has them.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/api/health", get(async || Json(json!({"status": "ok"}))))
        .route("/api/ready", get(ready))
        .fallback(async || ApiError::NotFound)
        .with_state(health)
}

/// The broker is not asked: without it, events wait, and everything else goes on.
async fn ready(State(health): State<Arc<Health>>) -> Result<Json<Value>, ApiError> {
    if !health.lifecycle.is_started() {
        return Err(ApiError::unavailable("database: its schema is not there yet; the log says what is waited for"));
    }
    match timeout(TIMEOUT, health.store.check()).await {
        Ok(Ok(())) => Ok(Json(json!({"status": "ready"}))),
        Ok(Err(error)) => Err(ApiError::unavailable(format!("database: {error}"))),
        Err(_) => Err(ApiError::unavailable(format!("database: no answer within {TIMEOUT:?}"))),
    }
}
