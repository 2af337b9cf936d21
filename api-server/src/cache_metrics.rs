//! What `/metrics` shows of the caches.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    level: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    level: &'static str,
}

/// The metrics of every cache. The hit ratio of the plan (section 5.1) is
/// `sum(rate(cache_requests_total{result="hit"}[5m])) / sum(rate(cache_requests_total[5m]))`.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// Views of tasks in this process (plan section 4.1, L2).
    pub view: LevelMetrics,
}

/// The metrics of one cache.
#[derive(Clone, Debug)]
pub struct LevelMetrics {
    /// How often an answer was there.
    pub hits: Counter,
    /// How often it was not.
    pub misses: Counter,
    entries: Gauge<i64, AtomicI64>,
    bytes: Gauge<i64, AtomicI64>,
}

impl CacheMetrics {
    /// Metrics that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let entries = Family::<LevelLabels, Gauge<i64, AtomicI64>>::default();
        let bytes = Family::<LevelLabels, Gauge<i64, AtomicI64>>::default();
        // The encoder appends `_total`.
        registry.register("cache_requests", "Look-ups in a cache", requests.clone());
        registry.register("cache_entries", "Entries of a cache in this process", entries.clone());
        registry.register("cache_bytes", "Memory that a cache in this process takes, about", bytes.clone());
        let level = |level| LevelMetrics {
            hits: requests.get_or_create_owned(&RequestLabels { level, result: "hit" }),
            misses: requests.get_or_create_owned(&RequestLabels { level, result: "miss" }),
            entries: entries.get_or_create_owned(&LevelLabels { level }),
            bytes: bytes.get_or_create_owned(&LevelLabels { level }),
        };
        Self { view: level("l2") }
    }
}

impl LevelMetrics {
    /// Shows how large the cache is.
    pub fn measured(&self, (entries, bytes): (usize, usize)) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
