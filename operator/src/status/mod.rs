//! What is reported: a condition a component, what they add up to, and the figures behind them.

mod conditions;
mod parts;
mod verdict;

use jiff::Timestamp;
use taskplatform_blueprint::{Component, Kind, Platform};
use taskplatform_crds::{ApiStatus, GatewayStatus, TaskPlatform, TaskPlatformStatus, WorkerStatus};

use crate::{
    act::{patroni, pooler},
    children::Children,
    redis,
};

use conditions::Conditions;
use verdict::{Pods, Verdict, Workload};

/// How many of a predecessor's objects a condition names.
const NAMED_REMAINS: usize = 5;

/// What was seen of a platform in one reconciliation.
pub(crate) struct Observed {
    pub(crate) database: Option<Result<patroni::Cluster, patroni::Error>>,
    pub(crate) poolers: Vec<Result<pooler::Pools, pooler::Error>>,
    pub(crate) cache: Option<Result<redis::Health, redis::Error>>,
    pub(crate) sessions: Option<Result<redis::Health, redis::Error>>,
    /// Whether the gateway serves; none while nobody could answer.
    pub(crate) gateway: Option<Result<(), String>>,
    /// What could not be applied.
    pub(crate) failures: Vec<String>,
    /// Whether the autoscaler follows the requests a second.
    pub(crate) requests_per_second: bool,
}

impl Observed {
    /// Whether there is an answer of every part that stands behind a network policy.
    pub(crate) fn all_answer(&self) -> bool {
        let serves = |health: &Option<Result<redis::Health, redis::Error>>| {
            health.as_ref().is_some_and(|health| health.as_ref().is_ok_and(|health| health.slots_assigned > 0))
        };
        self.database.as_ref().is_some_and(Result::is_ok)
            && !self.poolers.is_empty()
            && self.poolers.iter().all(Result::is_ok)
            && serves(&self.cache)
            && serves(&self.sessions)
            && self.gateway.as_ref().is_none_or(Result::is_ok)
    }
}

/// The status of a platform that can be built.
pub(crate) fn built(
    children: &Children,
    owner: &TaskPlatform,
    platform: &Platform,
    observed: &Observed,
    now: Timestamp,
) -> TaskPlatformStatus {
    let names = platform.names();
    let workload = |kind, component| Workload::of(children, owner, kind, &names.component(component));
    let (database, pooler) =
        (workload(Kind::StatefulSet, Component::Database), workload(Kind::Deployment, Component::Pooler));
    let (cache, sessions) =
        (workload(Kind::StatefulSet, Component::Cache), workload(Kind::StatefulSet, Component::Sessions));
    let (api, gateway) = (workload(Kind::Deployment, Component::Api), workload(Kind::Deployment, Component::Gateway));
    let worker = workload(Kind::Deployment, Component::Worker);

    let pods = |component| Pods(children.pods(owner, component));
    let verdicts: [(Component, Verdict); 7] = [
        (Component::Database, verdict::of_database(observed.database.as_ref(), &database, &pods(Component::Database))),
        (Component::Pooler, verdict::of_poolers(&observed.poolers, &pooler, &pods(Component::Pooler))),
        (Component::Cache, verdict::of_redis(observed.cache.as_ref(), &cache, &pods(Component::Cache))),
        (Component::Sessions, verdict::of_redis(observed.sessions.as_ref(), &sessions, &pods(Component::Sessions))),
        (Component::Api, verdict::of_workload(&api, &pods(Component::Api))),
        (Component::Worker, verdict::of_workload(&worker, &pods(Component::Worker))),
        (Component::Gateway, verdict::of_workload(&gateway, &pods(Component::Gateway))),
    ];

    let mut conditions = Conditions::of(owner, now);
    conditions.serving(observed, &verdicts);
    conditions.settled(observed, &verdicts);
    conditions.set("Stalled", "False", "Valid", "The spec can be built.");
    for (component, verdict) in &verdicts {
        conditions.component(*component, verdict);
    }
    let autoscaler = children.get(owner, Kind::HorizontalPodAutoscaler, &names.component(Component::Api));
    if let Some(autoscaler) = &autoscaler {
        conditions.autoscaler(autoscaler, observed);
    }

    let patroni = observed.database.as_ref().and_then(|cluster| cluster.as_ref().ok());
    TaskPlatformStatus {
        observed_generation: owner.metadata.generation.unwrap_or_default(),
        conditions: conditions.list,
        api: Some(ApiStatus {
            replicas: i32::try_from(api.existing).unwrap_or(i32::MAX),
            selector: parts::label_selector(platform),
            ready: api.ready(),
        }),
        autoscaler: autoscaler.map(|autoscaler| parts::autoscaler(&autoscaler, platform, observed.requests_per_second)),
        gateway: Some(GatewayStatus { ready: gateway.ready(), address: parts::address(children, owner, platform) }),
        pooler: Some(parts::pooler(pooler.ready(), &observed.poolers)),
        database: Some(parts::database(database.ready(), patroni)),
        cache: Some(parts::redis(cache.ready(), observed.cache.as_ref())),
        sessions: Some(parts::redis(sessions.ready(), observed.sessions.as_ref())),
        worker: Some(WorkerStatus { ready: worker.ready() }),
    }
}

/// The status of a platform whose spec cannot be built: what runs goes on running, and what was last seen of it stays.
pub(crate) fn stalled(owner: &TaskPlatform, reason: &str, now: Timestamp) -> TaskPlatformStatus {
    let mut conditions = Conditions::of(owner, now);
    let message = format!("{reason}. Nothing that runs is touched until the spec is mended.");
    conditions.set("Stalled", "True", "InvalidSpec", &message);
    conditions.set("Reconciling", "False", "InvalidSpec", &message);
    if !conditions.list.iter().any(|condition| condition.type_ == "Ready") {
        conditions.set("Ready", "False", "InvalidSpec", &message);
    }
    TaskPlatformStatus {
        observed_generation: owner.metadata.generation.unwrap_or_default(),
        conditions: conditions.list,
        ..owner.status.clone().unwrap_or_default()
    }
}

/// The status of a platform whose predecessor of the same name is not gone yet: nothing is applied meanwhile.
pub(crate) fn succeeding(owner: &TaskPlatform, remains: &[String], now: Timestamp) -> TaskPlatformStatus {
    let more = remains.len().saturating_sub(NAMED_REMAINS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = remains.iter().take(NAMED_REMAINS).cloned().collect::<Vec<_>>().join(", ");
    let message = format!(
        "what was deleted before has not ended yet: {named}{more}. It goes on when they are gone; if they stay, look for the finalizer or the pod that holds them"
    );
    let mut conditions = Conditions::of(owner, now);
    conditions.set("Ready", "False", "PredecessorEnding", &message);
    conditions.set("Reconciling", "True", "PredecessorEnding", &message);
    conditions.set("Stalled", "False", "Valid", "The spec can be built.");
    TaskPlatformStatus {
        observed_generation: owner.metadata.generation.unwrap_or_default(),
        conditions: conditions.list,
        ..owner.status.clone().unwrap_or_default()
    }
}
