//! What is reported: a condition a component, what they add up to, and the figures behind them.

mod conditions;
mod parts;
mod report;
mod spread;
pub(crate) mod verdict;

use jiff::Timestamp;
use taskplatform_blueprint::{Component, Draft, Kind, Platform, units};
use taskplatform_crds::{ApiStatus, GatewayStatus, TaskPlatformStatus, WorkerStatus};

use crate::{
    apply::Failure,
    keepers::{Observed, seen},
    procedure::{
        self,
        rollout::{self, Cause},
    },
    volumes::Room,
    world::Snapshot,
};

use conditions::Conditions;
pub(crate) use report::{Error, Reporter};
use verdict::{Pods, Verdict, Workload};

/// How many of a predecessor's objects a condition names.
const NAMED_REMAINS: usize = 5;

/// Why nothing is applied to a platform though its spec can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The spec has these fields, which this release does not know.
    Newer(Vec<String>),
    /// The user said so.
    Paused,
    /// A later release of the operator has applied it: an older one takes nothing back.
    OlderOperator(String),
    /// The operator was upgraded, and other platforms come first.
    UpgradeWaits,
}

/// This release of the operator.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What the status of a platform follows from.
pub(crate) struct Facts<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) observed: &'a Observed,
    pub(crate) failures: &'a [Failure],
    pub(crate) hold: Option<&'a Hold>,
    /// Whether the autoscaler follows the requests a second.
    pub(crate) requests_per_second: bool,
    /// How much room the volumes of the database have, as far as is known.
    pub(crate) room: Option<&'a Room>,
}

/// The status of a platform that can be built.
pub(crate) fn built(facts: &Facts<'_>, now: Timestamp) -> TaskPlatformStatus {
    let Facts { platform, snapshot, observed, .. } = facts;
    let units = units(platform, platform.api_instances(None));
    let of = |component| {
        let unit = units.iter().find(|unit| unit.component == component);
        let workload = unit.map(|unit| Workload::of(snapshot, unit.kind(), &unit.name)).unwrap_or_default();
        (workload, Pods { pods: snapshot.pods(component).map(|pod| &**pod).collect(), now })
    };
    let most_lag = i64::try_from(platform.spec().database.max_replica_lag.as_bytes()).unwrap_or(i64::MAX);
    let (patroni, poolers) = (seen(observed.database.as_ref()), seen(observed.poolers.as_ref()));
    let (cache, sessions) = (seen(observed.cache.as_ref()), seen(observed.sessions.as_ref()));
    let verdict = |component| {
        let (workload, pods) = &of(component);
        match component {
            Component::DATABASE => verdict::of_database(patroni, workload, pods, most_lag),
            Component::POOLER => verdict::of_poolers(poolers, workload, pods),
            Component::CACHE => verdict::of_redis(cache, workload, pods),
            Component::SESSIONS => verdict::of_redis(sessions, workload, pods),
            _ => verdict::of_workload(workload, pods),
        }
    };
    let verdicts: Vec<(Component, Verdict)> =
        Component::all().map(|component| (component, verdict(component))).collect();
    let ready = |component| of(component).0.ready();

    let rollout = seen(observed.rollout.as_ref());
    let rotation = seen(observed.rotation.as_ref()).and_then(|step| step.as_ref().ok());
    let procedure = match rollout {
        Some(Ok(Some(step))) => Some(procedure::place(platform, step.cause.procedure(), step.to_string(), now)),
        Some(Err(why)) => Some(procedure::place(platform, Cause::Template.procedure(), why.clone(), now)),
        Some(Ok(None)) | None => rotation.map(|step| procedure::place(platform, "Rotation", step.to_string(), now)),
    };

    let mut conditions = Conditions::of(platform, now);
    conditions.serving(seen(observed.gateway.as_ref()), &verdicts);
    conditions.settled(
        facts,
        &verdicts,
        procedure.as_ref().filter(|place| {
            place.name == Cause::Template.procedure() && procedure::is_late(place, rollout::DEADLINE, now)
        }),
    );
    conditions.stalled(facts.hold);
    for (component, verdict) in &verdicts {
        conditions.component(*component, verdict);
    }
    if let Some(Ok(cluster)) = patroni {
        conditions.durable(platform.spec().database.durability, cluster);
    }
    if let Some(room) = facts.room {
        conditions.room(room);
    }
    conditions.survives_node_loss(&spread::lost_with_a_node(snapshot, observed));
    let autoscaler = snapshot.get(Kind::HorizontalPodAutoscaler, &platform.names().component(Component::API));
    if let Some(autoscaler) = autoscaler {
        conditions.autoscaler(autoscaler, facts.requests_per_second);
    }

    TaskPlatformStatus {
        observed_generation: platform.generation(),
        conditions: conditions.list,
        api: Some(ApiStatus {
            replicas: i32::try_from(of(Component::API).0.existing).unwrap_or(i32::MAX),
            selector: parts::label_selector(platform),
            ready: ready(Component::API),
        }),
        autoscaler: autoscaler.map(|autoscaler| parts::autoscaler(autoscaler, platform, facts.requests_per_second)),
        gateway: Some(GatewayStatus { ready: ready(Component::GATEWAY), address: parts::address(snapshot, platform) }),
        pooler: Some(parts::pooler(ready(Component::POOLER), poolers)),
        database: Some(parts::database(
            ready(Component::DATABASE),
            patroni,
            most_lag,
            platform.status().and_then(|status| status.database.as_ref()),
        )),
        cache: Some(parts::redis(ready(Component::CACHE), cache)),
        sessions: Some(parts::redis(ready(Component::SESSIONS), sessions)),
        worker: Some(WorkerStatus { ready: ready(Component::WORKER) }),
        procedure,
        release: if facts.hold.is_none() {
            Some(RELEASE.to_owned())
        } else {
            platform.status().and_then(|status| status.release.clone())
        },
    }
}

/// The status of a platform that a person has to mend: what runs goes on running, and what was last seen of it stays.
pub(crate) fn stalled(draft: &Draft, reason: &str, message: &str, now: Timestamp) -> TaskPlatformStatus {
    let mut conditions = Conditions::of(draft, now);
    conditions.set("Stalled", "True", reason, message);
    conditions.set("Reconciling", "False", reason, message);
    if !conditions.list.iter().any(|condition| condition.type_ == "Ready") {
        conditions.set("Ready", "False", reason, message);
    }
    with_conditions(draft, conditions)
}

/// The status of a platform of which nothing can be applied for now; it is tried again.
pub(crate) fn waiting(draft: &Draft, reason: &str, message: &str, now: Timestamp) -> TaskPlatformStatus {
    let mut conditions = Conditions::of(draft, now);
    conditions.set("Reconciling", "True", reason, message);
    if !conditions.list.iter().any(|condition| condition.type_ == "Ready") {
        conditions.set("Ready", "False", reason, message);
    }
    with_conditions(draft, conditions)
}

/// The status of a platform whose predecessor of the same name is not gone yet: nothing is applied meanwhile.
pub(crate) fn succeeding(draft: &Draft, remains: &[String], now: Timestamp) -> TaskPlatformStatus {
    let more = remains.len().saturating_sub(NAMED_REMAINS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = remains.iter().take(NAMED_REMAINS).cloned().collect::<Vec<_>>().join(", ");
    let message = format!(
        "what was deleted before has not ended yet: {named}{more}. It goes on when they are gone; if they stay, look for the finalizer or the pod that holds them"
    );
    let mut conditions = Conditions::of(draft, now);
    conditions.set("Ready", "False", "PredecessorEnding", &message);
    conditions.set("Reconciling", "True", "PredecessorEnding", &message);
    conditions.stalled(None);
    with_conditions(draft, conditions)
}

fn with_conditions(draft: &Draft, conditions: Conditions) -> TaskPlatformStatus {
    TaskPlatformStatus {
        observed_generation: draft.generation(),
        conditions: conditions.list,
        ..draft.status().cloned().unwrap_or_default()
    }
}

/// Whether a condition is true.
pub(crate) fn is_true(status: &TaskPlatformStatus, type_: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}
