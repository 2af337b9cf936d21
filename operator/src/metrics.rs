//! What the operator measures of itself.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use taskplatform_crds::FailoverCause;

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// Everything was applied.
    Applied,
    /// The spec cannot be built.
    Invalid,
    /// Something failed; it is tried again.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) outcome: Outcome,
}

/// What the admission webhook said of a TaskPlatform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Verdict {
    /// Nothing is wrong.
    Admitted,
    /// It will disappoint.
    Warned,
    /// It cannot be built.
    Denied,
    /// The question was none.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct VerdictLabel {
    pub(crate) verdict: Verdict,
}

/// What became of the eviction of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Eviction {
    /// It is Kubernetes' matter.
    Left,
    /// The operator sees to it, and whoever wants it is told to ask again.
    Later,
    /// The one that was to go is gone.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EvictionLabel {
    pub(crate) eviction: Eviction,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PlatformLabel {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailoverLabel {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ConditionLabel {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) condition: String,
}

/// The operator's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) leader: Gauge,
    /// On how many nodes the replicas are that are ready.
    pub(crate) nodes: Gauge,
    pub(crate) reconciliations: Family<OutcomeLabel, Counter>,
    pub(crate) reconcile_seconds: Histogram,
    pub(crate) applied: Family<KindLabel, Counter>,
    pub(crate) ready: Family<PlatformLabel, Gauge>,
    pub(crate) conditions: Family<ConditionLabel, Gauge>,
    pub(crate) failovers: Family<FailoverLabel, Counter>,
    pub(crate) unled_seconds: Family<FailoverLabel, Counter<f64, AtomicU64>>,
    pub(crate) reviews: Family<VerdictLabel, Counter>,
    pub(crate) evictions: Family<EvictionLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("taskplatform_operator"),
            leader: Gauge::default(),
            nodes: Gauge::default(),
            reconciliations: Family::default(),
            // A reconciliation that changes nothing takes milliseconds; one that waits for a component takes its timeout.
            reconcile_seconds: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            applied: Family::default(),
            ready: Family::default(),
            conditions: Family::default(),
            failovers: Family::default(),
            unled_seconds: Family::default(),
            reviews: Family::default(),
            evictions: Family::default(),
        };
        let Self {
            registry,
            leader,
            nodes,
            reconciliations,
            reconcile_seconds,
            applied,
            ready,
            conditions,
            failovers,
            unled_seconds,
            reviews,
            evictions,
        } = &mut metrics;
        registry.register("leader", "1 while this replica reconciles", leader.clone());
        registry.register(
            "nodes",
            "On how many nodes the operator's replicas are, as the one that leads sees them",
            nodes.clone(),
        );
        registry.register("reconciliations", "Reconciliations by their outcome", reconciliations.clone());
        registry.register("reconcile_seconds", "How long a reconciliation takes", reconcile_seconds.clone());
        registry.register("applied_objects", "Objects sent to the API server, by kind", applied.clone());
        registry.register("platform_ready", "1 while the platform serves requests", ready.clone());
        registry.register(
            "platform_condition_bad",
            "1 for each condition of a platform that is not as it should be; without a series while it is",
            conditions.clone(),
        );
        registry.register(
            "primary_changes",
            "Changes of a platform's primary, wanted or not, by their cause",
            failovers.clone(),
        );
        registry.register_with_unit(
            "unled",
            "For how long nobody led in these changes, as the poolers saw it",
            Unit::Seconds,
            unled_seconds.clone(),
        );
        registry.register(
            "admission_reviews",
            "TaskPlatforms that the API server asked about, by the answer",
            reviews.clone(),
        );
        registry.register("evictions", "Pods that somebody wanted to evict, by what became of it", evictions.clone());
        metrics
    }
}

impl Metrics {
    /// The metrics in Prometheus' text format.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Notes how a platform is: whether it serves, and each condition with whether it is as it should be.
    pub(crate) fn note<'a>(
        &self,
        namespace: &str,
        name: &str,
        is_ready: bool,
        conditions: impl Iterator<Item = (&'a str, bool)>,
    ) {
        let platform = PlatformLabel { namespace: namespace.to_owned(), name: name.to_owned() };
        self.ready.get_or_create(&platform).set(i64::from(is_ready));
        for (condition, is_good) in conditions {
            let label = ConditionLabel {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                condition: condition.to_owned(),
            };
            if is_good {
                self.conditions.remove(&label);
            } else {
                self.conditions.get_or_create(&label).set(1);
            }
        }
    }

    /// Notes a change of the primary, and for how long nobody led.
    pub(crate) fn note_failover(&self, namespace: &str, name: &str, cause: FailoverCause, unled_milliseconds: i64) {
        let label = failover_label(namespace, name, cause);
        self.failovers.get_or_create(&label).inc();
        let unled = u64::try_from(unled_milliseconds).map(Duration::from_millis).unwrap_or_default();
        self.unled_seconds.get_or_create(&label).inc_by(unled.as_secs_f64());
    }

    /// Forgets a platform that is gone, and its conditions.
    pub(crate) fn forget<'a>(&self, namespace: &str, name: &str, conditions: impl Iterator<Item = &'a str>) {
        self.note(namespace, name, false, conditions.map(|condition| (condition, true)));
        self.ready.remove(&PlatformLabel { namespace: namespace.to_owned(), name: name.to_owned() });
        for cause in FailoverCause::ALL {
            let label = failover_label(namespace, name, cause);
            self.failovers.remove(&label);
            self.unled_seconds.remove(&label);
        }
    }
}

fn failover_label(namespace: &str, name: &str, cause: FailoverCause) -> FailoverLabel {
    FailoverLabel { namespace: namespace.to_owned(), name: name.to_owned(), cause: format!("{cause:?}") }
}
