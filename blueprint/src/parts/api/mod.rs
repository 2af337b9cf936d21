//! The task API: stateless pods, as many as the autoscaler wants.

mod autoscaler;

pub use autoscaler::{Band, bands};

use serde_json::{Value, json};
use taskplatform_crds::Resources;

use super::{Part, Proposal, RedisCluster, Share, database::TASKS};
use crate::{
    Code, Component, Draft, Facts, Finding, Level, Object, Platform, Unit,
    endpoints::{Endpoint, Outsider},
    findings,
    images::Image,
    object::Kind,
    pod,
    pod::Template,
    selector,
    unit::Workload,
};

impl Component {
    /// The task API, and its autoscaler.
    pub const API: Self = Self::new("api");
}

impl Endpoint {
    /// The task API.
    pub const API: Self =
        Self { component: Component::API, name: "http", port: 8080, service: "", open_to: &[], login: None };

    /// The task API's instances, each by its own address.
    pub const INSTANCES: Self = Self { service: "-instances", ..Self::API };

    /// The task API's metrics.
    pub const API_METRICS: Self = Self { name: "metrics", port: 9090, open_to: &[Outsider::Cluster], ..Self::API };
}

const COMPONENT: Component = Component::API;

/// The key that signs what the API hands out and takes back.
const SIGNING: &str = "signing-key";

/// The connections that an instance holds to the poolers at most: four that read from the primary, six that write, four to the
/// replicas, and two for what it does at its start.
pub(super) const CONNECTIONS: i32 = 16;

/// What an instance may take in memory however low the load, in bytes, without what it keeps of users. Alone on SQLite, 15 MiB were
/// measured at rest and 35 while a password is checked; its connections on the platform are allowed the rest.
const IDLE_MEMORY: u64 = 40 << 20;

/// The task API.
pub(super) struct Api;

impl Part for Api {
    fn component(&self) -> Component {
        COMPONENT
    }

    fn units(&self, platform: &Draft, instances: i32) -> Vec<Unit> {
        vec![unit(platform, instances)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        vec![service(platform), instances(platform), deployment(platform, facts), autoscaler::object(platform, facts)]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[Endpoint::API, Endpoint::INSTANCES, Endpoint::API_METRICS]
    }

    fn calls(&self) -> &'static [Endpoint] {
        &[Endpoint::POOLER, Endpoint::CACHE, Endpoint::SESSIONS]
    }

    fn image(&self) -> Image {
        Image::TaskApi
    }

    fn passwords(&self) -> &'static [&'static str] {
        &[SIGNING]
    }

    fn warnings(&self, platform: &Draft) -> Vec<Finding> {
        let least = platform.spec().scaling.min_instances.get();
        let single = findings::single_pod("spec.scaling.minInstances", "the API", least);
        single.into_iter().chain(memory(platform)).collect()
    }

    fn may_run_on_spot(&self) -> bool {
        true
    }

    fn proposal(&self, level: &Level, share: Share) -> Proposal {
        let resources =
            Resources { cpu: share.cpu(level.instance.cpu(), 50), memory: share.memory(level.instance.memory(), 96) };
        Proposal { resources, storage: None }
    }
}

fn unit(platform: &Draft, instances: i32) -> Unit {
    Unit {
        component: COMPONENT,
        name: platform.names().component(COMPONENT),
        workload: Workload::Deployment,
        pods: instances,
        resources: platform.spec().api.resources,
        storage: None,
    }
}

fn service(platform: &Platform) -> Object {
    Object::new(
        platform,
        COMPONENT,
        Kind::Service,
        &platform.names().component(COMPONENT),
        json!({"spec": {
            "type": "ClusterIP",
            "selector": selector(platform.name(), COMPONENT),
            "ports": [
                Endpoint::API.service_port(),
                Endpoint::API_METRICS.service_port(),
            ],
        }}),
    )
}

/// The ready instances, by which the gateway finds them.
fn instances(platform: &Platform) -> Object {
    Object::new(
        platform,
        COMPONENT,
        Kind::Service,
        &Endpoint::INSTANCES.host(platform),
        json!({"spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": selector(platform.name(), COMPONENT),
            "ports": [Endpoint::INSTANCES.service_port()],
        }}),
    )
}

fn deployment(platform: &Platform, facts: &Facts) -> Object {
    let template = Template {
        service_account: None,
        // The time to leave the gateway's endpoints, and to finish what is in flight.
        grace_period_seconds: 40,
        labels: &[],
        configuration: &[],
        container: container(platform, facts),
        sidecars: Vec::new(),
        volumes: vec![json!({"name": "tmp", "emptyDir": {}})],
    };
    let unit = unit(platform, platform.api_instances(facts.api_instances));
    pod::deployment(platform, &unit, &"25%".into(), template)
}

fn container(platform: &Platform, facts: &Facts) -> Value {
    let check = &platform.spec().gateway.health_check;
    json!({
        "name": "task-api",
        "image": image(platform, facts),
        "env": environment(platform, facts),
        "ports": [
            Endpoint::API.container_port(),
            Endpoint::API_METRICS.container_port(),
        ],
        // Started means that everything the API needs has answered once and the schema is there: ten minutes for the
        // database to come up.
        "startupProbe": {
            "httpGet": {"path": "/api/ready", "port": "http"},
            "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300,
        },
        // From then on an instance stays in service while its dependencies fail: it answers what it can, and a failing
        // database must not take every instance away at once.
        "readinessProbe": {
            "httpGet": {"path": check.path, "port": "http"},
            "periodSeconds": check.interval.as_secs_i32(),
            "timeoutSeconds": check.timeout.as_secs_i32(),
            "successThreshold": check.healthy_threshold.get(),
            "failureThreshold": check.unhealthy_threshold.get(),
        },
        "livenessProbe": {
            "httpGet": {"path": "/api/health", "port": "http"},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        // New connections stop coming before the process is told to stop.
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "resources": pod::resources(platform.spec().api.resources),
        "securityContext": pod::security_context(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    })
}

/// The image of the API and of its worker.
pub(super) fn image<'a>(platform: &'a Platform, facts: &'a Facts) -> &'a str {
    platform.spec().api.image.as_deref().unwrap_or_else(|| facts.images.get(Image::TaskApi))
}

fn environment(platform: &Platform, facts: &Facts) -> Vec<Value> {
    let (cache, sessions) = (&platform.spec().cache, &platform.spec().sessions);
    let mut environment = process_environment();
    environment.extend(database_environment(platform, facts));
    environment.extend([
        json!({"name": "DATABASE_READ_URL", "value": database_url(platform, facts, "tasks_ro")}),
        pod::secret_env(platform, facts, "SESSIONS_PASSWORD", RedisCluster::Sessions.password()),
        json!({"name": "SESSIONS_URL", "value": Endpoint::SESSIONS.url(platform, facts, "redis", "SESSIONS_PASSWORD")}),
        json!({"name": "SESSION_TTL", "value": sessions.ttl.to_string()}),
        pod::secret_env(platform, facts, "CACHE_PASSWORD", RedisCluster::Cache.password()),
        json!({"name": "CACHE_URL", "value": Endpoint::CACHE.url(platform, facts, "redis", "CACHE_PASSWORD")}),
        json!({"name": "CACHE_TTL", "value": cache.ttl.to_string()}),
        json!({"name": "CACHE_LOCAL_TTL", "value": cache.local_ttl.to_string()}),
        json!({"name": "CACHE_LOCAL_BYTES", "value": local_cache_bytes(platform).to_string()}),
        pod::secret_env(platform, facts, "SIGNING_KEY", SIGNING),
    ]);
    if facts.version(SIGNING) > 0 {
        // What the key before has signed is taken back as long as that one is admitted.
        environment.push(pod::former_secret_env(platform, facts, "SIGNING_KEY_FORMER", SIGNING));
    }
    environment
}

/// What an instance may keep in its own memory: an eighth of it. The rest is for requests, and for passwords that are checked.
pub(super) fn local_cache_bytes(platform: &Draft) -> u64 {
    (platform.spec().api.resources.memory.as_mebibytes() << 20) / 8
}

/// Where the process listens, and how it logs.
pub(super) fn process_environment() -> Vec<Value> {
    vec![
        json!({"name": "TASK_API_LISTEN", "value": format!("[::]:{}", Endpoint::API.port)}),
        json!({"name": "TASK_API_METRICS_LISTEN", "value": format!("[::]:{}", Endpoint::API_METRICS.port)}),
        json!({"name": "LOG_FORMAT", "value": "json"}),
    ]
}

/// The way to the primary.
pub(super) fn database_environment(platform: &Platform, facts: &Facts) -> Vec<Value> {
    vec![
        pod::secret_env(platform, facts, "TASKS_PASSWORD", TASKS),
        json!({"name": "DATABASE_URL", "value": database_url(platform, facts, "tasks")}),
    ]
}

fn database_url(platform: &Platform, facts: &Facts, database: &str) -> String {
    format!("{}/{database}", Endpoint::POOLER.url(platform, facts, "postgres", "TASKS_PASSWORD"))
}

/// What an instance may take however little it does, against what the autoscaler aims at.
fn memory(platform: &Draft) -> Option<Finding> {
    let spec = platform.spec();
    let memory = spec.api.resources.memory.as_bytes();
    let target = memory / 100 * u64::try_from(spec.scaling.target_memory.get()).unwrap_or_default();
    let used = IDLE_MEMORY + local_cache_bytes(platform);
    if used <= target {
        return None;
    }
    // An eighth of the memory is the cache's.
    let percent = u64::try_from(spec.scaling.target_memory.get()).unwrap_or_default();
    let enough = percent.checked_mul(2).and_then(|twice| twice.checked_sub(25)).filter(|rest| *rest > 0);
    let remedy = match enough {
        Some(rest) => {
            format!("give api.resources.memory {}Mi or more", (IDLE_MEMORY * 200 / rest).div_ceil(1 << 20))
        }
        None => "raise scaling.targetMemory".to_owned(),
    };
    Some(Finding::new(
        Code::ApiMemory,
        "spec.api.resources.memory",
        format!(
            "an instance may take {} MiB however low the load, and the autoscaler aims at {} MiB ({percent} % of {}): it could add instances and keep them though there is little to do",
            used >> 20,
            target >> 20,
            spec.api.resources.memory
        ),
        remedy,
    ))
}
