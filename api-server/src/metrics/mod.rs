//! What `/metrics` shows, under the names of the scalability plan. The request rate is
//! `rate(http_request_duration_seconds_count[1m])`.

use std::{
    hash::{Hash, Hasher},
    sync::atomic::AtomicI64,
    time::Duration,
};

use axum::extract::MatchedPath;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use task_api_store::StoreMetrics;
use task_api_telemetry::metrics::CacheMetrics;

use crate::error::ApiError;

mod process;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Those of the plan, and 0.2: its alert on slow requests.
const DURATION_BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Route,
    status: u16,
}

/// The template of the route that a request matched, if it matched one: there are only so many.
#[derive(Clone, Debug)]
pub struct Route(pub Option<MatchedPath>);

impl Route {
    /// The template.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.as_str().hash(hasher);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// What was refused because there was too much of it.
#[derive(Debug)]
pub struct Shed {
    /// Requests beyond those that are worked on and wait.
    pub requests: Counter,
    /// Connections beyond those that are served.
    pub connections: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    status: &'static str,
}

/// What waits and works at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Requests that are worked on or wait.
    pub requests_in_flight: usize,
    /// Requests that wait for their turn.
    pub requests_waiting: usize,
    /// Log-ins that wait for a turn to hash their password.
    pub passwords_waiting: usize,
    /// The memory that requests and answers take, in bytes.
    pub bytes_in_flight: usize,
    /// How many connections are served at most.
    pub most_connections: usize,
}

#[derive(Debug, Default)]
struct LoadGauges {
    requests_in_flight: Gauge,
    requests_waiting: Gauge,
    passwords_waiting: Gauge,
    bytes_in_flight: Gauge,
    most_connections: Gauge,
}

impl LoadGauges {
    fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("http_requests_in_flight", "Requests that are worked on or wait", &self.requests_in_flight),
            ("http_requests_waiting", "Requests that wait for their turn", &self.requests_waiting),
            ("password_hashes_waiting", "Log-ins that wait to hash their password", &self.passwords_waiting),
            ("http_in_flight_bytes", "Memory that requests and answers take", &self.bytes_in_flight),
            ("active_connections_limit", "How many connections are served at most", &self.most_connections),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    fn set(&self, load: Load) {
        for (gauge, value) in [
            (&self.requests_in_flight, load.requests_in_flight),
            (&self.requests_waiting, load.requests_waiting),
            (&self.passwords_waiting, load.passwords_waiting),
            (&self.bytes_in_flight, load.bytes_in_flight),
            (&self.most_connections, load.most_connections),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    connections: Gauge<i64, AtomicI64>,
    operations: Family<OperationLabels, Counter>,
    load: LoadGauges,
    /// Those of the caches.
    pub cache: CacheMetrics,
    /// What was refused.
    pub shed: Shed,
}

impl Metrics {
    /// Those of the process, with those of its store.
    pub fn new(store: &StoreMetrics) -> Self {
        let mut registry = Registry::default();
        let requests = Family::new_with_constructor((|| Histogram::new(DURATION_BUCKETS)) as fn() -> Histogram);
        let connections = Gauge::default();
        let operations = Family::default();
        registry.register("http_request_duration_seconds", "Duration of HTTP requests in seconds", requests.clone());
        registry.register("active_connections", "Number of active connections", connections.clone());
        // The encoder appends `_total`.
        registry.register("task_operations", "Total number of task operations", operations.clone());
        let shed = Family::<ReasonLabels, Counter>::default();
        registry.register("http_shed", "Requests and connections refused because there were too many", shed.clone());
        let shed_for = |reason| shed.get_or_create(&ReasonLabels { reason }).clone();
        let shed = Shed { requests: shed_for("requests"), connections: shed_for("connections") };
        registry.register(
            "task_api_build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let cache = CacheMetrics::new(&mut registry);
        store.register(&mut registry);
        let load = LoadGauges::default();
        load.register(&mut registry);
        registry.register_collector(Box::new(process::ProcessCollector));
        Self { registry, requests, connections, operations, load, cache, shed }
    }

    /// Everything as `OpenMetrics` text, under this `load`.
    pub fn render(&self, load: Load) -> String {
        self.load.set(load);
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Counts an answered request.
    pub fn request(&self, method: &'static str, route: Route, status: u16, took: Duration) {
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

    /// Counts what became of one of many.
    pub fn task_operation_in_batch(&self, operation: &'static str, is_done: bool) {
        let status = if is_done { "success" } else { "rejected" };
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
        let metrics = Metrics::new(&StoreMetrics::default());
        let connection = metrics.connection();
        metrics.request("GET", Route(None), 404, Duration::from_millis(20));
        metrics.task_operation("get", &Ok(()));
        metrics.task_operation::<()>("get", &Err(ApiError::NotFound));
        let text = metrics.render(Load { requests_waiting: 7, ..Load::default() });
        for line in [
            r#"http_request_duration_seconds_bucket{le="0.05",method="GET",route="unmatched",status="404"} 1"#,
            "active_connections 1",
            "http_requests_waiting 7",
            r#"task_operations_total{operation="get",status="success"} 1"#,
            r#"task_operations_total{operation="get",status="rejected"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(connection);
        assert!(metrics.render(Load::default()).contains("active_connections 0"));
    }
}
