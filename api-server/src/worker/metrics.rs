//! What a worker's `/metrics` shows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use task_api_store::{Backlog, Relayed};

use crate::{error::ApiError, metrics::CONTENT_TYPE};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: usize,
}

/// Every metric of a worker.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pending: Family<ShardLabel, Gauge<i64, AtomicI64>>,
    oldest: Family<ShardLabel, Gauge<f64, AtomicU64>>,
    published: Family<ShardLabel, Counter>,
    refreshes: Family<ShardLabel, Counter>,
    refresh_seconds: Family<ShardLabel, Gauge<f64, AtomicU64>>,
}

/// `/metrics`.
pub(super) fn router(metrics: Arc<Metrics>) -> Router {
    let render =
        async move || -> Response { ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.render()).into_response() };
    Router::new().route("/metrics", get(render)).fallback(async || ApiError::NotFound)
}

/// Those of one shard.
#[derive(Clone, Debug)]
pub(super) struct ShardMetrics {
    pending: Gauge<i64, AtomicI64>,
    oldest: Gauge<f64, AtomicU64>,
    published: Counter,
    refreshes: Counter,
    refresh_seconds: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(super) fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let (pending, oldest, published) = (Family::default(), Family::default(), Family::default());
        let (refreshes, refresh_seconds) = (Family::default(), Family::default());
        registry.register(
            "outbox_pending",
            "Events that wait for the broker, counted up to 100000",
            Family::clone(&pending),
        );
        registry.register(
            "outbox_oldest_seconds",
            "Age of the oldest event that waits for the broker",
            Family::clone(&oldest),
        );
        // The encoder appends `_total`.
        registry.register(
            "outbox_published",
            "Events that the broker confirmed to this worker",
            Family::clone(&published),
        );
        registry.register("summary_refreshes", "Refreshes of the summaries by this worker", Family::clone(&refreshes));
        registry.register(
            "summary_refresh_seconds",
            "Duration of this worker's last refresh of the summaries",
            Family::clone(&refresh_seconds),
        );
        Arc::new(Self { registry, pending, oldest, published, refreshes, refresh_seconds })
    }

    /// Everything as `OpenMetrics` text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    pub(super) fn of_shard(&self, shard: usize) -> ShardMetrics {
        let label = ShardLabel { shard };
        ShardMetrics {
            pending: self.pending.get_or_create_owned(&label),
            oldest: self.oldest.get_or_create_owned(&label),
            published: self.published.get_or_create_owned(&label),
            refreshes: self.refreshes.get_or_create_owned(&label),
            refresh_seconds: self.refresh_seconds.get_or_create_owned(&label),
        }
    }
}

impl ShardMetrics {
    pub(super) fn backlog(&self, backlog: Backlog) {
        self.pending.set(backlog.pending);
        self.oldest.set(backlog.oldest_seconds);
    }

    pub(super) fn published(&self, relayed: Relayed) {
        if let Relayed::Some(count) = relayed {
            self.published.inc_by(u64::try_from(count).unwrap_or_default());
        }
    }

    pub(super) fn refreshed(&self, took: Duration) {
        self.refreshes.inc();
        self.refresh_seconds.set(took.as_secs_f64());
    }
}
