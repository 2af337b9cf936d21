//! The task API: stateless pods, as many as the autoscaler wants.

use serde_json::{Value, json};

use crate::{
    Component, Draft, Facts, Object, Platform, credentials::keys, network, network::Caller, object::Kind, pod,
    pod::Template, ports, selector,
};

const COMPONENT: Component = Component::Api;

/// The connections that an instance holds to the poolers at most: four that read from the primary, six that write, four to the
/// replicas, and two for what it does at its start.
pub(crate) const CONNECTIONS: i32 = 16;

/// What an instance may take in memory however low the load, in bytes, without what it keeps of users. Alone on SQLite, 15 MiB were
/// measured at rest and 35 while a password is checked; its connections on the platform are allowed the rest.
pub(crate) const IDLE_MEMORY: u64 = 40 << 20;

pub(crate) fn objects(platform: &Platform, facts: &Facts) -> Vec<Object> {
    vec![
        network::policy(
            platform,
            facts,
            COMPONENT,
            &[(&[Caller::Component(Component::Gateway)], &[ports::API]), (&[Caller::Cluster], &[ports::API_METRICS])],
        ),
        service(platform),
        instances(platform),
        pod::disruption_budget(platform, COMPONENT),
        deployment(platform, facts),
    ]
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
                {"name": "http", "port": ports::API, "targetPort": "http", "protocol": "TCP"},
                {"name": "metrics", "port": ports::API_METRICS, "targetPort": "metrics", "protocol": "TCP"},
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
        &platform.names().instances(),
        json!({"spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": selector(platform.name(), COMPONENT),
            "ports": [{"name": "http", "port": ports::API, "targetPort": "http", "protocol": "TCP"}],
        }}),
    )
}

fn deployment(platform: &Platform, facts: &Facts) -> Object {
    let template = Template {
        component: COMPONENT,
        service_account: None,
        // The time to leave the gateway's endpoints, and to finish what is in flight.
        grace_period_seconds: 40,
        labels: &[],
        configuration: &[],
        container: container(platform, facts),
        volumes: vec![json!({"name": "tmp", "emptyDir": {}})],
    };
    pod::deployment(platform, platform.api_instances(facts.api_instances), &"25%".into(), template)
}

fn container(platform: &Platform, facts: &Facts) -> Value {
    let check = &platform.spec().gateway.health_check;
    json!({
        "name": "task-api",
        "image": image(platform, facts),
        "env": environment(platform),
        "ports": [
            {"name": "http", "containerPort": ports::API, "protocol": "TCP"},
            {"name": "metrics", "containerPort": ports::API_METRICS, "protocol": "TCP"},
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
pub(crate) fn image<'a>(platform: &'a Platform, facts: &'a Facts) -> &'a str {
    platform.spec().api.image.as_deref().unwrap_or(&facts.images.task_api)
}

fn environment(platform: &Platform) -> Vec<Value> {
    let redis = |component, password| {
        format!("redis://:$({password})@{}:{}", platform.names().component(component), ports::REDIS)
    };
    let (cache, sessions) = (&platform.spec().cache, &platform.spec().sessions);
    let mut environment = process_environment();
    environment.extend(database_environment(platform));
    environment.extend([
        json!({"name": "DATABASE_READ_URL", "value": database_url(platform, "tasks_ro")}),
        pod::secret_env(platform, "SESSIONS_PASSWORD", keys::SESSIONS),
        json!({"name": "SESSIONS_URL", "value": redis(Component::Sessions, "SESSIONS_PASSWORD")}),
        json!({"name": "SESSION_TTL", "value": sessions.ttl.to_string()}),
        pod::secret_env(platform, "CACHE_PASSWORD", keys::CACHE),
        json!({"name": "CACHE_URL", "value": redis(Component::Cache, "CACHE_PASSWORD")}),
        json!({"name": "CACHE_TTL", "value": cache.ttl.to_string()}),
        json!({"name": "CACHE_LOCAL_TTL", "value": cache.local_ttl.to_string()}),
        json!({"name": "CACHE_LOCAL_BYTES", "value": local_cache_bytes(platform).to_string()}),
        pod::secret_env(platform, "SIGNING_KEY", keys::SIGNING),
    ]);
    environment
}

/// What an instance may keep in its own memory: an eighth of it. The rest is for requests, and for passwords that are checked.
pub(crate) fn local_cache_bytes(platform: &Draft) -> u64 {
    (platform.spec().api.resources.memory.as_mebibytes() << 20) / 8
}

/// Where the process listens, and how it logs.
pub(crate) fn process_environment() -> Vec<Value> {
    vec![
        json!({"name": "TASK_API_LISTEN", "value": format!("[::]:{}", ports::API)}),
        json!({"name": "TASK_API_METRICS_LISTEN", "value": format!("[::]:{}", ports::API_METRICS)}),
        json!({"name": "LOG_FORMAT", "value": "json"}),
    ]
}

/// The way to the primary.
pub(crate) fn database_environment(platform: &Platform) -> Vec<Value> {
    vec![
        pod::secret_env(platform, "TASKS_PASSWORD", keys::TASKS),
        json!({"name": "DATABASE_URL", "value": database_url(platform, "tasks")}),
    ]
}

fn database_url(platform: &Platform, database: &str) -> String {
    let pooler = platform.names().component(Component::Pooler);
    format!("postgres://tasks:$(TASKS_PASSWORD)@{pooler}:{}/{database}", ports::PGBOUNCER)
}
