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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: &'static str,
}

/// The metrics of every cache. The hit ratio of the plan (section 5.1) is
/// `sum(rate(cache_requests_total{result="hit"}[5m])) / sum(rate(cache_requests_total[5m]))`.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// Views of tasks in this process (plan section 4.1, L2).
    pub view: LevelMetrics,
    /// Views in the cache cluster (L3).
    pub shared: LevelMetrics,
    /// Sessions in this process.
    pub session: LevelMetrics,
    /// What instances tell each other.
    pub bus: BusMetrics,
    breakers: Family<DependencyLabels, Gauge<i64, AtomicI64>>,
}

/// The metrics of the invalidation bus.
#[derive(Clone, Debug)]
pub struct BusMetrics {
    /// How much other instances were told.
    pub said: Counter,
    /// How much they told.
    pub heard: Counter,
    /// 1 while what they say is heard.
    pub informed: Gauge<i64, AtomicI64>,
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
        let news = Family::<DirectionLabels, Counter>::default();
        let bus = BusMetrics {
            said: news.get_or_create_owned(&DirectionLabels { direction: "sent" }),
            heard: news.get_or_create_owned(&DirectionLabels { direction: "received" }),
            informed: Gauge::default(),
        };
        registry.register("cache_invalidations", "What instances tell each other is no longer so", news);
        registry.register(
            "cache_invalidations_heard",
            "1 while the invalidations of other instances are heard",
            bus.informed.clone(),
        );
        let breakers = Family::default();
        registry.register("circuit_breaker_open", "1 while a dependency is left alone", Family::clone(&breakers));
        Self { view: level("l2"), shared: level("l3"), session: level("session"), bus, breakers }
    }
}

impl CacheMetrics {
    /// Shows whether the breaker of a dependency is open.
    pub fn breaker(&self, dependency: &'static str) -> Gauge<i64, AtomicI64> {
        self.breakers.get_or_create_owned(&DependencyLabels { dependency })
    }
}

impl LevelMetrics {
    /// Shows how large the cache is.
    pub fn measured(&self, (entries, bytes): (usize, usize)) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
