//! nginx, the only way in: rate limits, timeouts, and answers that a program can read when the API has none.

use serde_json::{Value, json};
use taskplatform_crds::{Rate, ServiceType};

use super::{Part, Proposal, Share};
use crate::{
    Component, Draft, Facts, Finding, Level, Object, Platform, Unit,
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
    /// nginx.
    pub const GATEWAY: Self = Self::new("gateway");
}

impl Endpoint {
    /// The way in.
    pub const GATEWAY: Self = Self {
        component: Component::GATEWAY,
        name: "http",
        port: 8080,
        service: "",
        open_to: &[Outsider::Anybody],
        login: None,
    };

    /// The gateway's own state.
    pub const GATEWAY_STATUS: Self =
        Self { name: "status", port: 8081, open_to: &[Outsider::Cluster], ..Self::GATEWAY };

    /// Where the gateway lets the operator ask whether the platform serves.
    pub const GATEWAY_OPERATOR: Self =
        Self { name: "operator", port: 8082, open_to: &[Outsider::Operator], ..Self::GATEWAY };
}

const COMPONENT: Component = Component::GATEWAY;

/// For so long a gateway that is to go asks its clients to come back to another one. Services lead past it within that time.
const LEAVE_SECONDS: u32 = 5;

/// nginx.
pub(super) struct Gateway;

impl Part for Gateway {
    fn component(&self) -> Component {
        COMPONENT
    }

    fn units(&self, platform: &Draft, _: i32) -> Vec<Unit> {
        vec![unit(platform)]
    }

    fn objects(&self, platform: &Platform, facts: &Facts) -> Vec<Object> {
        let name = platform.names().component(COMPONENT);
        let configuration = json!({"nginx.conf": configuration(platform), "peers.lua": include_str!("peers.lua"), "writes.lua": include_str!("writes.lua")});
        vec![
            Object::new(platform, COMPONENT, Kind::ConfigMap, &name, json!({"data": configuration})),
            service(platform, &name),
            deployment(platform, facts, &configuration),
        ]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[Endpoint::GATEWAY, Endpoint::GATEWAY_STATUS, Endpoint::GATEWAY_OPERATOR]
    }

    fn calls(&self) -> &'static [Endpoint] {
        &[Endpoint::INSTANCES]
    }

    fn image(&self) -> Image {
        Image::Gateway
    }

    fn warnings(&self, platform: &Draft) -> Vec<Finding> {
        findings::single_pod("spec.gateway.replicas", "the gateway", unit(platform).pods).into_iter().collect()
    }

    fn proposal(&self, _: &Level, share: Share) -> Proposal {
        share.small()
    }
}

fn unit(platform: &Draft) -> Unit {
    let gateway = &platform.spec().gateway;
    Unit {
        component: COMPONENT,
        name: platform.names().component(COMPONENT),
        workload: Workload::Deployment,
        pods: gateway.replicas.get(),
        resources: gateway.resources,
        storage: None,
    }
}

fn service(platform: &Platform, name: &str) -> Object {
    let service = &platform.spec().gateway.service;
    let mut port = json!({"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"});
    if let Some(node_port) = service.node_port {
        port["nodePort"] = node_port.get().into();
    }
    let mut spec = json!({
        "selector": selector(platform.name(), COMPONENT),
        "ports": [port],
    });
    match service.kind {
        ServiceType::LoadBalancer => {
            spec["type"] = "LoadBalancer".into();
            // The rate limits count by client address: it must survive the way in. The load balancer's health check
            // finds the nodes that have a gateway.
            spec["externalTrafficPolicy"] = "Local".into();
        }
        ServiceType::NodePort => {
            spec["type"] = "NodePort".into();
            // Every node answers, whether it has a gateway or not.
            spec["externalTrafficPolicy"] = "Cluster".into();
        }
        ServiceType::ClusterIP => spec["type"] = "ClusterIP".into(),
    }
    Object::new(platform, COMPONENT, Kind::Service, name, json!({"spec": spec}))
}

fn deployment(platform: &Platform, facts: &Facts, configuration: &Value) -> Object {
    let unit = unit(platform);
    let template = Template {
        service_account: None,
        // The image's stop signal makes nginx finish the requests in flight.
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: json!({
            "name": "nginx",
            "image": facts.images.get(Image::Gateway),
            "ports": [
                Endpoint::GATEWAY.container_port(),
                Endpoint::GATEWAY_STATUS.container_port(),
                Endpoint::GATEWAY_OPERATOR.container_port(),
            ],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "status"}, "periodSeconds": 2, "timeoutSeconds": 2},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "status"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            "lifecycle": {"preStop": {"exec": {"command": [
                "wget", "-qO-", "--post-data=", format!("http://127.0.0.1:{}/leave", Endpoint::GATEWAY_STATUS.port),
            ]}}},
            "resources": pod::resources(unit.resources),
            "securityContext": pod::security_context(),
            "volumeMounts": [
                {"name": "configuration", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": true},
                {"name": "configuration", "mountPath": "/etc/nginx/peers.lua", "subPath": "peers.lua", "readOnly": true},
                {"name": "configuration", "mountPath": "/etc/nginx/writes.lua", "subPath": "writes.lua", "readOnly": true},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }),
        sidecars: Vec::new(),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": unit.name}}),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::deployment(platform, &unit, &1.into(), template)
}

fn configuration(platform: &Platform) -> String {
    let gateway = &platform.spec().gateway;
    let limits = &gateway.rate_limits;
    let (told_by, scheme_told_by, https, protocol) = if gateway.proxy_protocol {
        ("proxy_protocol", "$proxy_protocol_server_port", "443", " proxy_protocol")
    } else {
        ("X-Forwarded-For", "$http_x_forwarded_proto", "https", "")
    };
    let each = |before: &str, after: &str, indent: &str| {
        let lines: Vec<_> =
            gateway.trusted_proxies.iter().map(|network| format!("{before}{network}{after};")).collect();
        if lines.is_empty() { "# Nothing is.".to_owned() } else { lines.join(indent) }
    };
    include_str!("nginx.conf")
        .replace("{trusted}", &each("set_real_ip_from ", "", "\n        "))
        .replace("{told}", &each("", " 1", "\n        "))
        .replace("{told_by}", told_by)
        .replace("{scheme_told_by}", scheme_told_by)
        .replace("{https}", https)
        .replace("{proxy_protocol}", protocol)
        .replace("{workers}", &gateway.resources.cpu.as_millicores().div_ceil(1000).to_string())
        .replace("{instances}", &Endpoint::INSTANCES.host(platform))
        .replace("{namespace}", platform.namespace())
        .replace("{api_port}", &Endpoint::INSTANCES.port.to_string())
        .replace("{leave_seconds}", &LEAVE_SECONDS.to_string())
        .replace("{port}", &Endpoint::GATEWAY.port.to_string())
        .replace("{status_port}", &Endpoint::GATEWAY_STATUS.port.to_string())
        .replace("{operator_port}", &Endpoint::GATEWAY_OPERATOR.port.to_string())
        .replace("{global_rate}", &limits.global.to_string())
        .replace("{auth_rate}", &limits.auth.rate.to_string())
        .replace("{auth_burst}", &limits.auth.burst.to_string())
        .replace("{auth_retry_after}", &retry_after(limits.auth.rate).to_string())
        .replace("{api_rate}", &limits.api.rate.to_string())
        .replace("{api_burst}", &limits.api.burst.to_string())
        .replace("{api_retry_after}", &retry_after(limits.api.rate).to_string())
}

/// Seconds after which one more request is admitted.
const fn retry_after(rate: Rate) -> u32 {
    match rate {
        Rate::PerSecond(_) => 1,
        Rate::PerMinute(requests) => 60_u32.div_ceil(requests),
    }
}
