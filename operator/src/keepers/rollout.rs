//! Carries out the rolling change of a platform's stateful parts.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use taskplatform_blueprint::{Component, Platform, RedisCluster, Unit, units};
use tokio::time::Instant;
use tracing::info;

use super::{Brief, Keeper, Seen, pace::Mood, patroni, redis, redis_cluster, switchover};
use crate::{
    describe,
    http::Http,
    procedure::rollout::{self, Part, Pod, Roles, Step},
};

/// For so long the API server may take to tell of a pod that was deleted.
const NEWS: Duration = Duration::from_secs(30);

/// A pod cannot be replaced.
#[derive(Debug, thiserror::Error)]
#[error("pod {pod} cannot be replaced: may the operator delete pods?")]
struct Error {
    pod: String,
    source: Box<kube::Error>,
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
        let (platform, namespace) = (brief.platform.name(), brief.platform.namespace());
        match step {
            Step::Await { .. } => return Ok(()),
            Step::HandOver { from, to, .. } => {
                info!(platform, namespace, %step, "rolling out");
                switchover::switch_over(&self.http, brief, from, to).await?;
            }
            Step::Replace { pod, uid, .. } => {
                info!(platform, namespace, %step, "rolling out");
                let api: Api<KubernetesPod> = Api::namespaced(self.client.clone(), namespace);
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                    ..DeleteParams::default()
                };
                match api.delete(pod, &parameters).await {
                    Ok(_) => self.replaced = Some((uid.clone(), Instant::now())),
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    Err(source) => {
                        return Err(describe(&Error { pod: pod.clone(), source: Box::new(source) }));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Keeper for Rollout {
    type Sight = Option<Step>;

    async fn look(&mut self, brief: &Brief) -> Seen<Option<Step>> {
        let parts: Vec<Part> = stateful(&brief.platform).iter().filter_map(|unit| part(brief, unit)).collect();
        let Some(next) = rollout::next_part(&parts) else { return Some(Ok(None)) };
        if let Some((uid, at)) = &self.replaced
            && at.elapsed() < NEWS
            && parts.iter().flat_map(|part| &part.pods).any(|pod| pod.uid == *uid && !pod.ending)
        {
            // What is known is from before the last step.
            return Some(Ok(Some(Step::Await { component: next.component, why: "a pod stops".to_owned() })));
        }
        let step = rollout::step(&parts, next, &self.roles(brief, next.component).await);
        if brief.may_act
            && let Err(error) = self.execute(brief, &step).await
        {
            return Some(Err(error));
        }
        Some(Ok(Some(step)))
    }

    fn mood(step: &Option<Step>) -> Mood {
        if step.is_none() { Mood::Idle } else { Mood::Working }
    }
}

/// The units whose pods are replaced one by one. The database, on which the others do not depend for being whole, is the last.
fn stateful(platform: &Platform) -> Vec<Unit> {
    let mut units = units(platform, platform.api_instances(None));
    units.retain(Unit::is_stateful);
    units.reverse();
    units
}

/// A part as the snapshot has it; none, where its StatefulSet is not known or has not been looked at by its controller yet.
fn part(brief: &Brief, unit: &Unit) -> Option<Part> {
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
        ready: pod.is_ready(),
        ending: pod.is_ending(),
    });
    let wanted = usize::try_from(data["spec"]["replicas"].as_i64()?).ok()?;
    Some(Part { component, wanted, pods: pods.collect() })
}

async fn redis_roles(brief: &Brief, cluster: RedisCluster) -> Roles {
    match redis_cluster::look(brief, cluster).await {
        Some(Ok(health)) if health.state == redis::State::Healthy => {
            Roles::Leaders(health.shards.into_iter().map(|shard| shard.master).collect())
        }
        Some(Ok(health)) => Roles::Unsettled(match health.state {
            redis::State::Working { message } | redis::State::Degraded { message } => message,
            redis::State::Healthy => String::new(),
        }),
        Some(Err(error)) => Roles::Unsettled(error),
        None => Roles::Unsettled("no pod has an address".to_owned()),
    }
}
