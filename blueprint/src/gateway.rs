//! nginx, the only way in: rate limits, timeouts, and answers that a program can read when the API has none.

use serde_json::{Value, json};
use taskplatform_crds::{Rate, ServiceType};

use crate::{
    Component, Facts, Object, Platform, network, network::Caller, object::Kind, pod, pod::Template, ports, selector,
};

const COMPONENT: Component = Component::Gateway;

pub(crate) fn objects(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let name = platform.names().component(COMPONENT);
    let configuration = json!({"nginx.conf": configuration(platform), "peers.lua": include_str!("peers.lua")});
    vec![
        network::policy(
            platform,
            facts,
            COMPONENT,
            &[
                (&[Caller::Anybody], &[ports::GATEWAY]),
                (&[Caller::Cluster], &[ports::GATEWAY_STATUS]),
                (&[Caller::Operator], &[ports::GATEWAY_OPERATOR]),
            ],
        ),
        Object::new(platform, COMPONENT, Kind::ConfigMap, &name, json!({"data": configuration})),
        service(platform, &name),
        pod::disruption_budget(platform, COMPONENT),
        deployment(platform, facts, &name, &configuration),
    ]
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

fn deployment(platform: &Platform, facts: &Facts, name: &str, configuration: &Value) -> Object {
    let gateway = &platform.spec().gateway;
    let template = Template {
        component: COMPONENT,
        service_account: None,
        // The image's stop signal makes nginx finish the requests in flight.
        grace_period_seconds: 60,
        labels: &[],
        configuration: &[configuration],
        container: json!({
            "name": "nginx",
            "image": facts.images.gateway,
            "ports": [
                {"name": "http", "containerPort": ports::GATEWAY, "protocol": "TCP"},
                {"name": "status", "containerPort": ports::GATEWAY_STATUS, "protocol": "TCP"},
                {"name": "operator", "containerPort": ports::GATEWAY_OPERATOR, "protocol": "TCP"},
            ],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "status"}, "periodSeconds": 2, "timeoutSeconds": 2},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "status"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "resources": pod::resources(gateway.resources),
            "securityContext": pod::security_context(),
            "volumeMounts": [
                {"name": "configuration", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": true},
                {"name": "configuration", "mountPath": "/etc/nginx/peers.lua", "subPath": "peers.lua", "readOnly": true},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }),
        volumes: vec![
            json!({"name": "configuration", "configMap": {"name": name}}),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
    };
    pod::deployment(platform, gateway.replicas.get(), &1.into(), template)
}

fn configuration(platform: &Platform) -> String {
    let limits = &platform.spec().gateway.rate_limits;
    include_str!("nginx.conf")
        .replace("{workers}", &platform.spec().gateway.resources.cpu.as_millicores().div_ceil(1000).to_string())
        .replace("{instances}", &platform.names().instances())
        .replace("{namespace}", platform.namespace())
        .replace("{api_port}", &ports::API.to_string())
        .replace("{port}", &ports::GATEWAY.to_string())
        .replace("{status_port}", &ports::GATEWAY_STATUS.to_string())
        .replace("{operator_port}", &ports::GATEWAY_OPERATOR.to_string())
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
