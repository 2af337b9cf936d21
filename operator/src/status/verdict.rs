//! Whether a component is as it should be; if not, why, and on which pod.

use jiff::Timestamp;
use serde_json::Value;
use taskplatform_blueprint::{Kind, trouble};

use crate::{
    keepers::{Poolers, patroni, redis},
    world::{Child, Snapshot},
};

/// Why a database that was made anew around its volumes has no primary yet, and the way out where a volume is lost.
const WAITS_FOR_ALL: &str = ". The database was made anew around its volumes: a member leads that has everything up to the last known position, or, when all run, the most advanced. Where a volume is lost for good, go on without what it alone had: kubectl exec -it POD -- patronictl -c /etc/patroni/patroni.yml failover";

/// How a component is: true, or why not.
pub(super) type Verdict = Result<String, (&'static str, String)>;

/// A Deployment or StatefulSet in numbers; one that is not there has none.
#[derive(Default)]
pub(crate) struct Workload {
    pub(super) desired: i64,
    /// Pods that exist, of whatever template.
    pub(super) existing: i64,
    ready: i64,
    /// Every pod is of the latest template.
    rolled_out: bool,
    /// What the API server answered where it did not let a pod be made: a quota, a limit, a policy.
    refusal: Option<String>,
}

impl Workload {
    pub(crate) fn of(snapshot: &Snapshot, kind: Kind, name: &str) -> Self {
        let Some(object) = snapshot.get(kind, name) else {
            return Self::default();
        };
        let data = object.data();
        let status = |field: &str| data["status"][field].as_i64().unwrap_or(0);
        let desired = data["spec"]["replicas"].as_i64().unwrap_or(1);
        let current = object.generation > 0 && status("observedGeneration") >= object.generation;
        let existing = status("replicas");
        // A rolling update of a Deployment ends when the pods of the former template are gone.
        let rolled_out = current && status("updatedReplicas") == desired && existing == desired;
        let refusal = refusal(&data).or_else(|| snapshot.refusal(name)).filter(|_| existing < desired);
        Self { desired, existing, ready: status("readyReplicas").min(desired), rolled_out, refusal }
    }

    pub(super) fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.desired)
    }

    pub(crate) const fn is_complete(&self) -> bool {
        self.rolled_out && self.ready == self.desired && self.desired > 0
    }
}

/// What a Deployment says of pods that it may not make.
fn refusal(workload: &Value) -> Option<String> {
    let conditions = workload["status"]["conditions"].as_array();
    let failure = conditions.into_iter().flatten().find(|condition| condition["type"] == "ReplicaFailure")?;
    if failure["status"] == "True" { failure["message"].as_str().map(str::to_owned) } else { None }
}

pub(super) fn of_workload(workload: &Workload, pods: &Pods) -> Verdict {
    if workload.is_complete() {
        return Ok(format!("{} pods are ready.", workload.ready()));
    }
    if let Some(refusal) = &workload.refusal {
        return Err(("PodsRefused", format!("{} pods are ready: {refusal}", workload.ready())));
    }
    let reason = if workload.ready < workload.desired || workload.desired == 0 { "PodsNotReady" } else { "RollingOut" };
    Err((reason, format!("{} pods are ready{}", workload.ready(), pods.trouble())))
}

pub(super) fn of_database(
    cluster: Option<&Result<patroni::Cluster, String>>,
    workload: &Workload,
    pods: &Pods,
    most_lag: i64,
) -> Verdict {
    match cluster {
        Some(Ok(cluster)) => {
            let lagging = list(&cluster.lagging(most_lag));
            let Some(primary) = cluster.primary() else {
                let waits = if cluster.only_the_most_advanced { WAITS_FOR_ALL } else { "" };
                return Err(("NoPrimary", format!("no primary is running{lagging}{}{waits}", pods.trouble())));
            };
            if primary.volume.as_ref().is_some_and(|volume| volume.is_full) {
                let message = format!("{} takes no writes: its volume is full (see VolumesHaveRoom)", primary.pod);
                return Err(("VolumeFull", message));
            }
            if let Some(doing) = cluster.doing.first() {
                return Err(("Changing", doing.clone()));
            }
            if let Some(member) = cluster.members.iter().find(|member| !member.pending.is_empty()) {
                let settings: Vec<String> = member.pending.iter().map(ToString::to_string).collect();
                return Err(("Changing", format!("{} waits for a restart for {}", member.pod, settings.join(", "))));
            }
            of_workload(workload, pods)?;
            let replicas = i64::try_from(cluster.streaming(most_lag)).unwrap_or(i64::MAX);
            if replicas + 1 < workload.desired {
                let message = format!("{replicas} of {} replicas stream{lagging}", workload.desired - 1);
                return Err(("ReplicasNotStreaming", message));
            }
            Ok(format!("{} is the primary, {replicas} replicas stream from it.", primary.pod))
        }
        Some(Err(error)) => Err(("PatroniFailed", format!("{error}{}", pods.trouble()))),
        None => of_workload(workload, pods),
    }
}

/// A PgBouncer whose port is open may hang all the same, or admit nobody any more.
pub(super) fn of_poolers(poolers: Option<&Result<Poolers, String>>, workload: &Workload, pods: &Pods) -> Verdict {
    let poolers = poolers.and_then(|poolers| poolers.as_ref().ok()).into_iter().flatten();
    let silent: Vec<String> = poolers.filter_map(|pools| pools.as_ref().err().cloned()).collect();
    let ready = of_workload(workload, pods)?;
    if silent.is_empty() { Ok(ready) } else { Err(("PoolerDoesNotAnswer", silent.join("; "))) }
}

pub(super) fn of_redis(health: Option<&Result<redis::Health, String>>, workload: &Workload, pods: &Pods) -> Verdict {
    match health {
        Some(Ok(health)) => match &health.state {
            redis::State::Healthy => of_workload(workload, pods).map(|_| {
                let replicas: usize = health.shards.iter().map(|shard| shard.replicas.len()).sum();
                format!(
                    "{} masters serve {} slots, {replicas} replicas follow.",
                    health.shards.len(),
                    health.slots_assigned
                )
            }),
            redis::State::Working { message } => Err(("Working", format!("{message}{}", pods.trouble()))),
            redis::State::Degraded { message } => Err(("Degraded", format!("{message}{}", pods.trouble()))),
        },
        Some(Err(error)) => Err(("RedisFailed", format!("{error}{}", pods.trouble()))),
        None => of_workload(workload, pods),
    }
}

/// Whether the autoscaler can see and scale.
pub(super) fn of_autoscaler(autoscaler: &Child) -> Verdict {
    let data = autoscaler.data();
    let conditions = data["status"]["conditions"].as_array();
    let condition = |type_: &str| conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    let Some(active) = condition("ScalingActive") else {
        return Err(("NotStarted", "it has not measured anything yet".into()));
    };
    for condition in [condition("AbleToScale"), Some(active)].into_iter().flatten() {
        if condition["status"] != "True" {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            return Err(("DoesNotScale", format!("{}: {}", text("reason"), text("message"))));
        }
    }
    Ok("It measures, and can scale.".into())
}

fn list(items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!(": {}", items.join(", ")) }
}

/// Of the component's pods, what keeps them from being ready.
pub(super) struct Pods<'a> {
    pub(super) pods: Vec<&'a Child>,
    pub(super) now: Timestamp,
}

impl Pods<'_> {
    /// The worst, after a colon; nothing where nothing is known.
    fn trouble(&self) -> String {
        let troubles = self
            .pods
            .iter()
            .filter_map(|pod| Some((&pod.name, trouble(&pod.data()["status"], pod.ends_by, pod.node(), self.now)?)));
        let worst = troubles.max_by_key(|(_, trouble)| trouble.rank);
        worst.map_or_else(String::new, |(pod, trouble)| format!(": {pod} {}", trouble.why))
    }
}
