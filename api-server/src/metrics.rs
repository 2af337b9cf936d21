//! What `/metrics` shows, under the names of the scalability plan. The request rate is
//! `rate(http_request_duration_seconds_count[1m])`.

use std::{sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{cache_metrics::CacheMetrics, error::ApiError};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const DURATION_BUCKETS: [f64; 7] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    status: &'static str,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    connections: Gauge<i64, AtomicI64>,
    operations: Family<OperationLabels, Counter>,
    /// Those of the caches.
    pub cache: CacheMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::new_with_constructor((|| Histogram::new(DURATION_BUCKETS)) as fn() -> Histogram);
        let connections = Gauge::default();
        let operations = Family::default();
        registry.register("http_request_duration_seconds", "Duration of HTTP requests in seconds", requests.clone());
        registry.register("active_connections", "Number of active connections", connections.clone());
        // The encoder appends `_total`.
        registry.register("task_operations", "Total number of task operations", operations.clone());
        let cache = CacheMetrics::new(&mut registry);
        Self { registry, requests, connections, operations, cache }
    }
}

impl Metrics {
    /// Everything as `OpenMetrics` text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Counts an answered request. `route` is the template that matched, so there are only so many.
    pub fn request(&self, method: &'static str, route: String, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { method, route, status }).observe(took.as_secs_f64());
    }

    /// Counts a connection for as long as the guard lives.
    pub fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Counts what became of an operation on a task.
    pub fn task_operation<T>(&self, operation: &'static str, result: &Result<T, ApiError>) {
        let status = match result {
            Ok(_) => "success",
            Err(ApiError::Unavailable { .. } | ApiError::Internal(_)) => "failed",
            Err(_) => "rejected",
        };
        self.operations.get_or_create(&OperationLabels { operation, status }).inc();
    }
}

/// Keeps a connection counted.
#[derive(Debug)]
pub struct ConnectionGuard(Gauge<i64, AtomicI64>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_names() {
        let metrics = Metrics::default();
        let connection = metrics.connection();
        metrics.request("GET", "/api/tasks/{id}".to_owned(), 200, Duration::from_millis(20));
        metrics.task_operation("get", &Ok(()));
        metrics.task_operation::<()>("get", &Err(ApiError::NotFound));
        let text = metrics.render();
        for line in [
            r#"http_request_duration_seconds_bucket{le="0.05",method="GET",route="/api/tasks/{id}",status="200"} 1"#,
            "active_connections 1",
            r#"task_operations_total{operation="get",status="success"} 1"#,
            r#"task_operations_total{operation="get",status="rejected"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(connection);
        assert!(metrics.render().contains("active_connections 0"));
    }
}
