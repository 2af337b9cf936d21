//! What `/metrics` shows of the store.

use std::{sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// From half a millisecond to the longest that the store is waited for.
const DURATION_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The pool that writes.
const WRITES: &str = "writes";
/// The pool that reads where it writes.
pub(super) const PRIMARY: &str = "primary";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    shard: usize,
}

/// The metrics of a store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    operations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    connections: Family<PoolLabels, Gauge<i64, AtomicI64>>,
    statements: Family<PoolLabels, Gauge<i64, AtomicI64>>,
    waiting: Family<PoolLabels, Gauge<i64, AtomicI64>>,
    breakers: Family<PoolLabels, Gauge<i64, AtomicI64>>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let histogram = (|| Histogram::new(DURATION_BUCKETS)) as fn() -> Histogram;
        let (connections, statements, waiting, breakers) = Default::default();
        Self { operations: Family::new_with_constructor(histogram), connections, statements, waiting, breakers }
    }
}

impl StoreMetrics {
    /// Has `registry` show them.
    pub fn register(&self, registry: &mut Registry) {
        let duration = "Duration of operations of the store in seconds, with the waiting for their turn";
        registry.register("store_operation_duration_seconds", duration, self.operations.clone());
        let connections = "Open connections to the database";
        registry.register("database_pool_connections", connections, self.connections.clone());
        let statements = "Statements that are under way, several on a connection";
        registry.register("database_pool_statements", statements, self.statements.clone());
        let waiting = "Requests whose changes wait for those of others to be written";
        registry.register("database_pool_waiting", waiting, self.waiting.clone());
        let breakers = "1 while requests are refused, as the primary was away for as long as they wait for it";
        registry.register("database_circuit_breaker_open", breakers, self.breakers.clone());
    }

    /// Notes how an operation went.
    pub(super) fn operation(&self, operation: &'static str, succeeded: bool, took: Duration) {
        let status = if succeeded { "success" } else { "error" };
        self.operations.get_or_create(&OperationLabels { operation, status }).observe(took.as_secs_f64());
    }

    /// The metrics of one pool of connections.
    pub(super) fn pool(&self, pool: &'static str, shard: usize) -> PoolMetrics {
        let labels = PoolLabels { pool, shard };
        PoolMetrics {
            connections: self.connections.get_or_create_owned(&labels),
            statements: self.statements.get_or_create_owned(&labels),
        }
    }

    /// The metrics of a writer.
    pub(super) fn writer(&self, shard: usize) -> WriterMetrics {
        let waiting = self.waiting.get_or_create_owned(&PoolLabels { pool: WRITES, shard });
        WriterMetrics { pool: self.pool(WRITES, shard), waiting, breaker: self.breaker(WRITES, shard) }
    }

    /// Shows whether what a pool leads to is left alone.
    pub(super) fn breaker(&self, pool: &'static str, shard: usize) -> Gauge<i64, AtomicI64> {
        self.breakers.get_or_create_owned(&PoolLabels { pool, shard })
    }
}

/// The metrics of a writer.
#[derive(Clone, Debug, Default)]
pub(super) struct WriterMetrics {
    /// Of its connections.
    pub(super) pool: PoolMetrics,
    /// How many requests wait for those before them.
    pub(super) waiting: Gauge<i64, AtomicI64>,
    /// Whether the primary is left alone.
    pub(super) breaker: Gauge<i64, AtomicI64>,
}

/// The metrics of one pool of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolMetrics {
    /// What is open.
    pub(super) connections: Gauge<i64, AtomicI64>,
    /// What is under way.
    pub(super) statements: Gauge<i64, AtomicI64>,
}

/// One more, for as long as it lives.
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    pub(super) fn of(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
