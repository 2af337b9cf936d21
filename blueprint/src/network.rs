//! Who may talk to whom: a component admits its callers, and nobody else.

use serde_json::{Value, json};

use crate::{Component, Facts, Object, Platform, object::Kind, selector};

/// Somebody who may call.
pub(crate) enum Caller {
    /// Anybody, from anywhere.
    Anybody,
    /// Every pod of the cluster: who scrapes metrics is not known beforehand.
    Cluster,
    /// The operator's pods.
    Operator,
    /// The pods of a component of the same platform.
    Component(Component),
}

/// A component's NetworkPolicy: ports, and who may call them.
pub(crate) fn policy(
    platform: &Platform,
    facts: &Facts,
    component: Component,
    admitted: &[(&[Caller], &[i32])],
) -> Object {
    let ingress: Vec<Value> = admitted
        .iter()
        .map(|(callers, ports)| {
            let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
            let from: Vec<Value> = callers.iter().filter_map(|caller| peer(platform, facts, caller)).collect();
            if from.is_empty() { json!({"ports": ports}) } else { json!({"from": from, "ports": ports}) }
        })
        .collect();
    Object::new(
        platform,
        component,
        Kind::NetworkPolicy,
        &platform.names().component(component),
        json!({"spec": {
            "podSelector": {"matchLabels": selector(platform.name(), component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        }}),
    )
}

fn peer(platform: &Platform, facts: &Facts, caller: &Caller) -> Option<Value> {
    match caller {
        Caller::Anybody => None,
        Caller::Cluster => Some(json!({"namespaceSelector": {}})),
        Caller::Operator => Some(json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": facts.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "taskplatform-operator"}},
        })),
        Caller::Component(component) => {
            Some(json!({"podSelector": {"matchLabels": selector(platform.name(), *component)}}))
        }
    }
}
