//! Who may talk to whom: a part admits those that say that they call it, and nobody else.

use serde_json::{Value, json};

use crate::{
    Component, Facts, Object, Platform,
    endpoints::{Endpoint, Outsider},
    object::Kind,
    parts::{PARTS, Part},
    selector,
};

/// A part's NetworkPolicy: its ports, and who may call them.
pub(crate) fn policy(platform: &Platform, facts: &Facts, part: &dyn Part) -> Object {
    let component = part.component();
    let mut ports: Vec<u16> = part.endpoints().iter().map(|endpoint| endpoint.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let ingress: Vec<Value> = ports.into_iter().filter_map(|number| rule(platform, facts, part, number)).collect();
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

/// None where nobody calls: a rule without callers would admit everybody.
fn rule(platform: &Platform, facts: &Facts, part: &dyn Part, number: u16) -> Option<Value> {
    let here = |endpoint: &&Endpoint| endpoint.component == part.component() && endpoint.port == number;
    let callers = PARTS.iter().filter(|caller| caller.calls().iter().any(|endpoint| here(&endpoint)));
    let outsiders = part.endpoints().iter().filter(here).flat_map(|endpoint| endpoint.open_to);
    let ports = json!([{"port": number, "protocol": "TCP"}]);
    if outsiders.clone().any(|outsider| *outsider == Outsider::Anybody) {
        return Some(json!({"ports": ports}));
    }
    let callers = callers.map(|caller| of_part(platform, caller.component()));
    let from: Vec<Value> = callers.chain(outsiders.map(|outsider| of_outsider(facts, *outsider))).collect();
    (!from.is_empty()).then(|| json!({"from": from, "ports": ports}))
}

fn of_part(platform: &Platform, component: Component) -> Value {
    json!({"podSelector": {"matchLabels": selector(platform.name(), component)}})
}

fn of_outsider(facts: &Facts, outsider: Outsider) -> Value {
    match outsider {
        Outsider::Anybody => json!({}),
        Outsider::Cluster => json!({"namespaceSelector": {}}),
        Outsider::Operator => json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": facts.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "taskplatform-operator"}},
        }),
    }
}
