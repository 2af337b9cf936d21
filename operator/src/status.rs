//! What is reported: a condition a component, and what they add up to.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{ResourceExt, core::DynamicObject};
use taskplatform_blueprint::{Component, Kind, Platform, selector};
use taskplatform_crds::{
    ApiStatus, DatabaseStatus, GatewayStatus, PoolerStatus, RedisStatus, ServiceType, TaskPlatform, TaskPlatformStatus,
    WorkerStatus,
};

use crate::{act::patroni, children::Children, describe, redis};

/// How many of a predecessor's objects a condition names.
const NAMED_REMAINS: usize = 5;

/// What was seen of a platform in one reconciliation.
pub(crate) struct Observed {
    pub(crate) database: Option<Result<patroni::Cluster, patroni::Error>>,
    pub(crate) cache: Option<Result<redis::Health, redis::Error>>,
    pub(crate) sessions: Option<Result<redis::Health, redis::Error>>,
    /// Whether the gateway serves; none while nobody could answer.
    pub(crate) gateway: Option<Result<(), String>>,
    /// What could not be applied.
    pub(crate) failures: Vec<String>,
    /// Whether the autoscaler follows the requests a second.
    pub(crate) requests_per_second: bool,
}

/// How a component is: true, or why not.
type Verdict = Result<String, (&'static str, String)>;

/// A Deployment or StatefulSet in numbers.
struct Workload {
    desired: i64,
    /// Pods that exist, of whatever template.
    existing: i64,
    ready: i64,
    /// Every pod is of the latest template.
    rolled_out: bool,
}

impl Workload {
    fn of(children: &Children, platform: &TaskPlatform, kind: Kind, name: &str) -> Self {
        let Some(object) = children.get(platform, kind, name) else {
            return Self { desired: 0, existing: 0, ready: 0, rolled_out: false };
        };
        let status = |field: &str| object.data["status"][field].as_i64().unwrap_or(0);
        let desired = object.data["spec"]["replicas"].as_i64().unwrap_or(1);
        let current = object.metadata.generation.is_some_and(|generation| status("observedGeneration") >= generation);
        let existing = status("replicas");
        // A rolling update of a Deployment ends when the pods of the former template are gone.
        let rolled_out = current && status("updatedReplicas") == desired && existing == desired;
        Self { desired, existing, ready: status("readyReplicas").min(desired), rolled_out }
    }

    fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.desired)
    }

    const fn is_complete(&self) -> bool {
        self.rolled_out && self.ready == self.desired && self.desired > 0
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
        (Component::Database, database_verdict(observed.database.as_ref(), &database, &pods(Component::Database))),
        (Component::Pooler, workload_verdict(&pooler, &pods(Component::Pooler))),
        (Component::Cache, redis_verdict(observed.cache.as_ref(), &cache, &pods(Component::Cache))),
        (Component::Sessions, redis_verdict(observed.sessions.as_ref(), &sessions, &pods(Component::Sessions))),
        (Component::Api, workload_verdict(&api, &pods(Component::Api))),
        (Component::Worker, workload_verdict(&worker, &pods(Component::Worker))),
        (Component::Gateway, workload_verdict(&gateway, &pods(Component::Gateway))),
    ];

    let mut conditions = Conditions::of(owner, now);
    conditions.serving(observed, &verdicts);
    conditions.settled(observed, &verdicts);
    conditions.set("Stalled", "False", "Valid", "The spec can be built.");
    for (component, verdict) in &verdicts {
        conditions.component(*component, verdict);
    }
    conditions
        .autoscaler(children.get(owner, Kind::HorizontalPodAutoscaler, &names.component(Component::Api)), observed);

    let patroni = observed.database.as_ref().and_then(|cluster| cluster.as_ref().ok());
    TaskPlatformStatus {
        observed_generation: owner.metadata.generation.unwrap_or_default(),
        conditions: conditions.list,
        api: Some(ApiStatus {
            replicas: i32::try_from(api.existing).unwrap_or(i32::MAX),
            selector: label_selector(platform),
            ready: api.ready(),
        }),
        gateway: Some(GatewayStatus { ready: gateway.ready(), address: address(children, owner, platform) }),
        pooler: Some(PoolerStatus { ready: pooler.ready() }),
        database: Some(DatabaseStatus {
            ready: database.ready(),
            primary: patroni.and_then(|cluster| cluster.primary.clone()).unwrap_or_default(),
            timeline: patroni.and_then(|cluster| cluster.timeline),
            streaming_replicas: patroni.map_or(0, |cluster| i32::try_from(cluster.streaming.len()).unwrap_or(i32::MAX)),
        }),
        cache: Some(redis_status(observed.cache.as_ref(), &cache)),
        sessions: Some(redis_status(observed.sessions.as_ref(), &sessions)),
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

/// The conditions, which keep the time of their last transition.
struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    fn of(owner: &TaskPlatform, now: Timestamp) -> Self {
        let list = owner.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        Self { list, generation: owner.metadata.generation, now }
    }

    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let before = self.list.iter().position(|condition| condition.type_ == type_);
        let last_transition_time = match before.map(|at| &self.list[at]) {
            Some(condition) if condition.status == status => condition.last_transition_time.clone(),
            _ => Time(self.now),
        };
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time,
        };
        match before {
            Some(at) => self.list[at] = condition,
            None => self.list.push(condition),
        }
    }

    /// Ready: a task can be written and read through the gateway.
    fn serving(&mut self, observed: &Observed, verdicts: &[(Component, Verdict)]) {
        let waiting: Vec<&(Component, Verdict)> = verdicts.iter().filter(|(_, verdict)| verdict.is_err()).collect();
        let list = waiting.iter().map(|(component, _)| title(*component)).collect::<Vec<_>>().join(",");
        let details = waiting.iter().filter_map(|(component, verdict)| {
            verdict.as_ref().err().map(|(_, message)| format!("{component}: {message}"))
        });
        let details = details.collect::<Vec<_>>().join("; ");
        match &observed.gateway {
            Some(Ok(())) if waiting.is_empty() => {
                self.set("Ready", "True", "Serving", "A task can be written and read through the gateway.");
            }
            Some(Ok(())) => {
                let message =
                    format!("A task can be written and read through the gateway. Not as it should be: {details}");
                self.set("Ready", "True", &format!("Degraded:{list}"), &message);
            }
            Some(Err(error)) => {
                let message = if details.is_empty() { error.clone() } else { format!("{error}; {details}") };
                let reason =
                    if waiting.is_empty() { "GatewayDoesNotServe".into() } else { format!("WaitingFor:{list}") };
                self.set("Ready", "False", &reason, &message);
            }
            None => {
                let reason =
                    if waiting.is_empty() { "WaitingFor:Gateway".into() } else { format!("WaitingFor:{list}") };
                self.set("Ready", "False", &reason, &details);
            }
        }
    }

    /// Reconciling: something is still on its way to what the spec says.
    fn settled(&mut self, observed: &Observed, verdicts: &[(Component, Verdict)]) {
        if !observed.failures.is_empty() {
            self.set("Reconciling", "True", "ApplyFailed", &observed.failures.join("; "));
        } else if let Some((component, Err((reason, message)))) = verdicts.iter().find(|(_, verdict)| verdict.is_err())
        {
            self.set("Reconciling", "True", reason, &format!("{component}: {message}"));
        } else {
            self.set("Reconciling", "False", "Settled", "Everything is as the spec says.");
        }
    }

    fn component(&mut self, component: Component, verdict: &Verdict) {
        let type_ = format!("{}Ready", title(component));
        match verdict {
            Ok(message) => self.set(&type_, "True", "AsDesired", message),
            Err((reason, message)) => self.set(&type_, "False", reason, message),
        }
    }

    /// Says which metrics are in force, and whether the API server keeps the tolerances.
    fn autoscaler(&mut self, autoscaler: Option<Arc<DynamicObject>>, observed: &Observed) {
        let Some(autoscaler) = autoscaler else { return };
        let behavior = &autoscaler.data["spec"]["behavior"];
        let kept = ["scaleUp", "scaleDown"].iter().all(|direction| behavior[*direction]["tolerance"].is_string());
        let metrics = if observed.requests_per_second {
            "CPU, memory and requests per second are in force."
        } else {
            "CPU and memory are in force. Requests per second are not: no provider serves the pods' metric http_requests_per_second; install one, such as prometheus-adapter."
        };
        if kept {
            self.set("AutoscalingPolicyDegraded", "False", "AsDocumented", metrics);
        } else {
            let message = format!(
                "The API server does not keep the tolerance of a HorizontalPodAutoscaler, so it scales at ±10 % of the targets instead of at the thresholds: upgrade to Kubernetes 1.35 or enable HPAConfigurableTolerance. {metrics}"
            );
            self.set("AutoscalingPolicyDegraded", "True", "ToleranceDropped", &message);
        }
    }
}

fn workload_verdict(workload: &Workload, pods: &Pods) -> Verdict {
    if workload.is_complete() {
        return Ok(format!("{} pods are ready.", workload.ready()));
    }
    let reason = if workload.ready < workload.desired || workload.desired == 0 { "PodsNotReady" } else { "RollingOut" };
    Err((reason, format!("{} pods are ready{}", workload.ready(), pods.trouble())))
}

fn database_verdict(
    cluster: Option<&Result<patroni::Cluster, patroni::Error>>,
    workload: &Workload,
    pods: &Pods,
) -> Verdict {
    match cluster {
        Some(Ok(cluster)) if cluster.primary.is_none() => {
            let message = format!("no primary is running{}{}", list(&cluster.lagging), pods.trouble());
            Err(("NoPrimary", message))
        }
        Some(Ok(cluster)) if workload.is_complete() => {
            let replicas = i64::try_from(cluster.streaming.len()).unwrap_or(i64::MAX);
            if replicas + 1 < workload.desired {
                let message =
                    format!("{replicas} of {} replicas stream{}", workload.desired - 1, list(&cluster.lagging));
                return Err(("ReplicasNotStreaming", message));
            }
            let primary = cluster.primary.as_deref().unwrap_or_default();
            Ok(format!("{primary} is the primary, {replicas} replicas stream from it."))
        }
        Some(Err(error)) => Err(("PatroniFailed", format!("{}{}", describe(error), pods.trouble()))),
        _ => workload_verdict(workload, pods),
    }
}

fn redis_verdict(health: Option<&Result<redis::Health, redis::Error>>, workload: &Workload, pods: &Pods) -> Verdict {
    match health {
        Some(Ok(health)) => match &health.state {
            redis::State::Healthy => workload_verdict(workload, pods).map(|_| {
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
        Some(Err(error)) => Err(("RedisFailed", format!("{}{}", describe(error), pods.trouble()))),
        None => workload_verdict(workload, pods),
    }
}

fn redis_status(health: Option<&Result<redis::Health, redis::Error>>, workload: &Workload) -> RedisStatus {
    let health = health.and_then(|health| health.as_ref().ok());
    RedisStatus {
        ready: workload.ready(),
        slots: health.map_or(0, |health| i32::from(health.slots_assigned)),
        masters: health
            .map(|health| health.shards.iter().map(|shard| shard.master.clone()).collect())
            .unwrap_or_default(),
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!(": {}", items.join(", ")) }
}

fn title(component: Component) -> String {
    let name = component.name();
    format!("{}{}", name[..1].to_uppercase(), &name[1..])
}

fn label_selector(platform: &Platform) -> String {
    let labels = selector(platform.name(), Component::Api);
    let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// Where the gateway answers.
fn address(children: &Children, owner: &TaskPlatform, platform: &Platform) -> String {
    let name = platform.names().component(Component::Gateway);
    let inside = format!("http://{name}.{}.svc", platform.namespace());
    let Some(service) = children.get(owner, Kind::Service, &name) else { return inside };
    let ingress = &service.data["status"]["loadBalancer"]["ingress"][0];
    let node_port = service.data["spec"]["ports"][0]["nodePort"].as_i64();
    match (platform.spec().gateway.service.kind, ingress["hostname"].as_str().or(ingress["ip"].as_str()), node_port) {
        (ServiceType::LoadBalancer, Some(host), _) => format!("http://{host}"),
        (ServiceType::LoadBalancer | ServiceType::NodePort, _, Some(port)) => format!("port {port} of every node"),
        _ => inside,
    }
}

/// Of the component's pods, what keeps them from being ready.
struct Pods(Vec<Arc<DynamicObject>>);

impl Pods {
    /// The worst, after a colon; nothing where nothing is known.
    fn trouble(&self) -> String {
        let troubles = self.0.iter().filter_map(|pod| Some((pod.name_any(), trouble(pod)?)));
        // A reason that Kubernetes gives says more than one that is still awaited.
        troubles.max_by_key(|(_, (rank, _))| *rank).map_or_else(String::new, |(pod, (_, why))| format!(": {pod} {why}"))
    }
}

/// Why a pod is not ready, and how much that says.
fn trouble(pod: &DynamicObject) -> Option<(u8, String)> {
    let status = &pod.data["status"];
    let condition = |type_: &str| {
        status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == type_)
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return Some((1, "is stopping".into()));
    }
    if condition("Ready").is_some_and(|ready| ready["status"] == "True") {
        return None;
    }
    if let Some(unscheduled) = condition("PodScheduled").filter(|scheduled| scheduled["status"] == "False") {
        return Some((4, format!("is not scheduled: {}", unscheduled["message"].as_str().unwrap_or_default())));
    }
    let container = &status["containerStatuses"][0];
    if let Some(waiting) = container["state"]["waiting"].as_object() {
        let (reason, message) = (waiting.get("reason"), waiting.get("message"));
        let text =
            |value: Option<&serde_json::Value>| value.and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let rank = if text(reason) == "ContainerCreating" || text(reason) == "PodInitializing" { 2 } else { 5 };
        return Some((rank, format!("waits: {} {}", text(reason), text(message)).trim_end().to_owned()));
    }
    let ended = &container["lastState"]["terminated"];
    if let Some(code) = ended["exitCode"].as_i64() {
        let reason = ended["reason"].as_str().unwrap_or("Error");
        return Some((3, format!("has started again after it ended with {code} ({reason}) and is not ready yet")));
    }
    Some((2, "is starting".into()))
}
