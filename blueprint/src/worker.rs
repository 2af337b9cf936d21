//! The worker: the task API's work beside requests. Any number may run; they share the work by locks in the database.

use serde_json::{Value, json};

use crate::{Component, Facts, Object, Platform, api, network, network::Caller, pod, pod::Template, ports};

const COMPONENT: Component = Component::Worker;

/// The connections that a worker holds to the poolers at most: four that read and six that write, as an instance of the API, one that relays
/// events and one that refreshes summaries.
pub(crate) const CONNECTIONS: i32 = 12;

pub(crate) fn objects(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let template = Template {
        component: COMPONENT,
        service_account: None,
        // What was begun is finished.
        grace_period_seconds: 40,
        labels: &[],
        configuration: &[],
        container: container(platform, facts),
        volumes: vec![],
    };
    vec![
        network::policy(platform, facts, COMPONENT, &[(&[Caller::Cluster], &[ports::API_METRICS])]),
        pod::disruption_budget(platform, COMPONENT),
        pod::deployment(platform, platform.spec().worker.replicas.get(), &1.into(), template),
    ]
}

fn container(platform: &Platform, facts: &Facts) -> Value {
    let mut environment = api::process_environment();
    environment.extend(api::database_environment(platform));
    json!({
        "name": "worker",
        "image": api::image(platform, facts),
        "args": ["worker"],
        "env": environment,
        "ports": [
            {"name": "http", "containerPort": ports::API, "protocol": "TCP"},
            {"name": "metrics", "containerPort": ports::API_METRICS, "protocol": "TCP"},
        ],
        // Ten minutes for the database to come up.
        "startupProbe": {
            "httpGet": {"path": "/api/ready", "port": "http"},
            "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300,
        },
        "readinessProbe": {
            "httpGet": {"path": "/api/ready", "port": "http"},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        // The process itself: a database that is away is waited for.
        "livenessProbe": {
            "httpGet": {"path": "/api/health", "port": "http"},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "resources": pod::resources(platform.spec().worker.resources),
        "securityContext": pod::security_context(),
    })
}
