//! The worker: the task API's work beside requests. Any number may run; they share the work by locks in the database.

use serde_json::{Value, json};

use taskplatform_crds::{Cpu, Resources, Size};

use super::{Part, Proposal, Share, api};
use crate::{
    Component, Draft, Facts, Level, Object, Platform, Unit,
    endpoints::{Endpoint, Outsider},
    images::Image,
    pod,
    pod::Template,
    unit::Workload,
};

impl Component {
    /// The task API's work beside requests.
    pub const WORKER: Self = Self::new("worker");
}

impl Endpoint {
    /// The worker's metrics.
    pub const WORKER_METRICS: Self =
        Self { component: Component::WORKER, open_to: &[Outsider::Cluster], ..Self::API_METRICS };
}

const COMPONENT: Component = Component::WORKER;

/// The connections that a worker holds to the poolers at most: four that read and six that write, as an instance of the API, one that relays
/// events and one that refreshes summaries.
pub(super) const CONNECTIONS: i32 = 12;

/// The workers.
pub(super) struct Worker;

impl Part for Worker {
    fn component(&self) -> Component {
        COMPONENT
    }

    fn units(&self, platform: &Draft, _: i32) -> Vec<Unit> {
        vec![unit(platform)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        let template = Template {
            service_account: None,
            // What was begun is finished.
            grace_period_seconds: 40,
            labels: &[],
            configuration: &[],
            container: container(platform, facts),
            sidecars: Vec::new(),
            volumes: vec![],
        };
        vec![pod::deployment(platform, &unit(platform), &1.into(), template)]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[Endpoint::WORKER_METRICS]
    }

    fn calls(&self) -> &'static [Endpoint] {
        &[Endpoint::POOLER]
    }

    fn image(&self) -> Image {
        Image::TaskApi
    }

    fn proposal(&self, _: &Level, share: Share) -> Proposal {
        let resources =
            Resources { cpu: share.cpu(Cpu::millicores(250), 25), memory: share.memory(Size::mebibytes(128), 64) };
        Proposal { resources, storage: None }
    }
}

fn unit(platform: &Draft) -> Unit {
    let worker = &platform.spec().worker;
    Unit {
        component: COMPONENT,
        name: platform.names().component(COMPONENT),
        workload: Workload::Deployment,
        pods: worker.replicas.get(),
        resources: worker.resources,
        storage: None,
    }
}

fn container(platform: &Platform, facts: &Facts) -> Value {
    let mut environment = api::process_environment();
    environment.extend(api::database_environment(platform, facts));
    json!({
        "name": "worker",
        "image": api::image(platform, facts),
        "args": ["worker"],
        "env": environment,
        "ports": [
            Endpoint::API.container_port(),
            Endpoint::WORKER_METRICS.container_port(),
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
