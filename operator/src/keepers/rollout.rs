//! Carries out the rolling change of a platform's stateful parts.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use taskplatform_blueprint::{Component, MANAGED_BY, Platform, RedisCluster, Unit, is_taken_by_no_node, units};
use taskplatform_crds::{SWITCHOVER, TaskPlatform};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Brief, Keeper, Seen, pace::Mood, patroni, redis, redis_cluster, switchover};
use crate::{
    describe,
    http::Http,
    procedure::rollout::{self, Act, Cause, Group, Part, Pod, Roles, State, Step, Wish},
    world::Child,
};

/// For so long the API server may take to tell of a pod that was deleted.
const NEWS: Duration = Duration::from_secs(30);
/// Who drains a node asks every few seconds; one that has given up asks no more.
const ASKED: Duration = Duration::from_mins(2);

/// The API server refuses what is to be done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("pod {pod} cannot be replaced: may the operator delete pods?")]
    Replace { pod: String, source: Box<kube::Error> },
    #[error("annotation {SWITCHOVER} cannot be removed: may the operator patch TaskPlatforms?")]
    Annotation { source: Box<kube::Error> },
}

/// The rollout of one platform.
pub(super) struct Rollout {
    client: Client,
    http: Http,
    /// The pod that was deleted last.
    replaced: Option<(String, Instant)>,
}

impl Rollout {
    pub(super) const fn new(client: Client, http: Http) -> Self {
        Self { client, http, replaced: None }
    }

    /// Asks the part itself, now: what its keeper saw last may be older than the last replacement.
    async fn roles(&self, brief: &Brief, component: Component) -> Roles {
        match component {
            Component::CACHE => redis_roles(brief, RedisCluster::Cache).await,
            Component::SESSIONS => redis_roles(brief, RedisCluster::Sessions).await,
            _ => patroni::roles(&self.http, brief).await,
        }
    }

    async fn execute(&mut self, brief: &Brief, step: &Step) -> Result<(), String> {
        let (platform, namespace, procedure) =
            (brief.platform.name(), brief.platform.namespace(), step.cause.procedure());
        match &step.act {
            Act::Await { .. } | Act::Retry { .. } => {}
            Act::HandOver { from, to } => {
                info!(platform, namespace, procedure, %step, "one pod after another");
                if from != to {
                    switchover::switch_over(&self.http, brief, from, to).await?;
                }
                if step.cause == Cause::Switchover {
                    self.fulfilled(brief).await?;
                }
            }
            Act::Replace { pod, uid } => {
                info!(platform, namespace, procedure, %step, "one pod after another");
                let api: Api<KubernetesPod> = Api::namespaced(self.client.clone(), namespace);
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                    ..DeleteParams::default()
                };
                match api.delete(pod, &parameters).await {
                    Ok(_) => self.replaced = Some((uid.clone(), Instant::now())),
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    Err(source) => {
                        return Err(describe(&Error::Replace { pod: pod.clone(), source: Box::new(source) }));
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the wish for a switchover.
    async fn fulfilled(&self, brief: &Brief) -> Result<(), String> {
        let platform = &brief.platform;
        let api: Api<TaskPlatform> = Api::namespaced(self.client.clone(), platform.namespace());
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        let change = json!({"metadata": {"uid": platform.uid(), "annotations": {SWITCHOVER: null}}});
        match api.patch_metadata(platform.name(), &parameters, &Patch::Merge(change)).await {
            Err(error) => Err(describe(&Error::Annotation { source: Box::new(error) })),
            Ok(_) => Ok(()),
        }
    }
}

impl Keeper for Rollout {
    type Sight = Option<Step>;

    async fn look(&mut self, brief: &Brief) -> Seen<Option<Step>> {
        let now = Timestamp::now();
        let parts: Vec<Part> = stateful(&brief.platform).iter().filter_map(|unit| part(brief, unit, now)).collect();
        // One that cannot be read is told where nothing else is to be done; it holds nothing up.
        let (wish, unreadable) = match wish(&brief.platform, now) {
            Ok(wish) => (wish, None),
            Err(why) => {
                (None, Some(Step { cause: Cause::Switchover, component: Component::DATABASE, act: Act::Retry { why } }))
            }
        };
        let candidates = rollout::candidates(&parts, wish.as_ref());
        let Some((cause, first)) = candidates.first().copied() else { return Some(Ok(unreadable)) };
        let wait = |component, why: &str| Step { cause, component, act: Act::Await { why: why.to_owned() } };
        if let Some((uid, at)) = &self.replaced
            && at.elapsed() < NEWS
            && parts.iter().flat_map(|part| &part.pods).any(|pod| pod.uid == *uid && pod.state != State::Ending)
        {
            // What is known is from before the last step.
            return Some(Ok(Some(wait(first.component, "a pod stops"))));
        }
        let asked =
            candidates.into_iter().map(async |candidate| (candidate, self.roles(brief, candidate.1.component).await));
        let Some(mut step) = rollout::step(&parts, &join_all(asked).await, wish.as_ref()) else {
            return Some(Ok(unreadable));
        };
        // It would not be paused, and its users' transactions not be waited for. Who was deleted does not wait for it.
        if matches!(step.act, Act::HandOver { .. })
            && step.cause != Cause::Deletion
            && brief.snapshot.pods(Component::POOLER).any(|pod| pod.is_ending())
        {
            step = wait(Component::POOLER, "a pod stops");
        }
        if brief.may_act
            && let Err(why) = self.execute(brief, &step).await
        {
            let (platform, namespace) = (brief.platform.name(), brief.platform.namespace());
            warn!(platform, namespace, procedure = step.cause.procedure(), %step, why, "a step did not go, and is tried again");
            step.act = Act::Retry { why };
        }
        Some(Ok(Some(step)))
    }

    fn mood(step: &Option<Step>) -> Mood {
        match step {
            None => Mood::Idle,
            Some(Step { act: Act::Retry { .. }, .. }) => Mood::Troubled,
            Some(_) => Mood::Working,
        }
    }
}

/// Whether somebody wants another member of the database to lead by now.
fn wish(platform: &Platform, now: Timestamp) -> Result<Option<Wish>, String> {
    let wish = platform.switchover().map_err(|error| describe(error))?;
    let due = wish.filter(|wish| wish.at.is_none_or(|at| at <= now));
    Ok(due.map(|wish| Wish { component: Component::DATABASE, to: wish.to.clone() }))
}

/// The units whose pods are replaced one by one. The database, on which the others do not depend for being whole, is the last.
fn stateful(platform: &Platform) -> Vec<Unit> {
    let mut units = units(platform, platform.api_instances(None));
    units.retain(Unit::is_stateful);
    units.reverse();
    units
}

/// A part as the snapshot has it; none, where its StatefulSet is not known or has not been looked at by its controller yet.
fn part(brief: &Brief, unit: &Unit, now: Timestamp) -> Option<Part> {
    let set = brief.snapshot.get(unit.kind(), &unit.name)?;
    let component = unit.component;
    let data = set.data();
    let status = &data["status"];
    let current = status["updateRevision"].as_str()?;
    if status["observedGeneration"].as_i64()? < set.generation {
        return None;
    }
    let pods = brief.snapshot.pods(component).map(|pod| Pod {
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
        outdated: pod.revision.as_deref() != Some(current),
        evicted: pod.evicted.is_some_and(|asked| now.duration_since(asked).unsigned_abs() < ASKED),
        state: state(pod),
    });
    let wanted = usize::try_from(data["spec"]["replicas"].as_i64()?).ok()?;
    Some(Part { component, wanted, pods: pods.collect() })
}

fn state(pod: &Child) -> State {
    match (pod.is_ending(), pod.is_ready()) {
        (true, _) => State::Ending,
        (false, true) => State::Ready,
        (false, false) if is_taken_by_no_node(&pod.data()["status"]) => State::Stranded,
        (false, false) => State::Starting,
    }
}

/// A shard whose master is told to stop has its best replica take over.
async fn redis_roles(brief: &Brief, cluster: RedisCluster) -> Roles {
    let health = match redis_cluster::look(brief, cluster).await {
        Some(Ok(health)) => health,
        Some(Err(error)) => return Roles::unserved(error),
        None => return Roles::unserved("no pod has an address".to_owned()),
    };
    let unserved = redis::SLOTS - health.slots_assigned;
    let groups = health.shards.into_iter().map(|shard| Group {
        leader: shard.master,
        heirs: shard.replicas.into_iter().filter(|replica| replica.in_sync).map(|replica| replica.pod).collect(),
    });
    Roles {
        groups: groups.collect(),
        unserved: (unserved > 0).then(|| format!("{unserved} slots are not served")),
        unsettled: match health.state {
            redis::State::Healthy => None,
            redis::State::Working { message } | redis::State::Degraded { message } => Some(message),
        },
        ..Roles::default()
    }
}
