//! What every pod has in common: it passes the `restricted` Pod Security Standard, and is spread over nodes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use taskplatform_crds::{Cpu, Resources, Storage};

use crate::{Component, Facts, Object, Platform, Unit, credentials::slot, labels, object::Kind, selector};

/// The user and group that every image runs as.
const USER: i64 = 10001;
/// The labels that tell a node and its zone. Not every node has a zone.
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// For so long a pod without state stays with a node that is told to be lost.
const LOST_NODE_SECONDS: i64 = 5;

/// A pod's template.
pub(crate) struct Template<'a> {
    pub(crate) service_account: Option<String>,
    pub(crate) grace_period_seconds: i64,
    /// Labels beside the component's own.
    pub(crate) labels: &'a [(&'a str, String)],
    /// Configuration that the pod reads only when it starts: a new pod replaces it when this changes.
    pub(crate) configuration: &'a [&'a Value],
    pub(crate) container: Value,
    /// Containers that begin before it and end after it.
    pub(crate) sidecars: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
}

impl Template<'_> {
    fn value(self, platform: &Platform, unit: &Unit) -> Value {
        let Self { service_account, grace_period_seconds, labels: extra, configuration, container, sidecars, volumes } =
            self;
        let mut labels = labels(platform.name(), unit.component);
        labels.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str()))));
        let mut metadata = json!({"labels": labels});
        if !configuration.is_empty() {
            metadata["annotations"] = json!({"taskplatform.dev/configuration": hash(configuration)});
        }
        let mut spec = json!({
            // Only PostgreSQL's members talk to the API server.
            "automountServiceAccountToken": service_account.is_some(),
            // Service links would put the name of every Service in the namespace into the environment.
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": grace_period_seconds,
            "securityContext": pod_security_context(),
            "topologySpreadConstraints": spread(platform, unit),
            "affinity": affinity(platform, unit),
            "containers": [container],
            "volumes": volumes,
        });
        if !sidecars.is_empty() {
            spec["initContainers"] = sidecars.into_iter().map(sidecar).collect();
        }
        if let Some(name) = service_account {
            spec["serviceAccountName"] = name.into();
        }
        json!({"metadata": metadata, "spec": spec})
    }
}

fn sidecar(mut container: Value) -> Value {
    container["restartPolicy"] = "Always".into();
    container
}

/// A unit's Deployment. While it is replaced, no pod goes before another one is ready; `surge` may be there besides.
pub(crate) fn deployment(platform: &Platform, unit: &Unit, surge: &Value, template: Template) -> Object {
    let mut pod_template = template.value(platform, unit);
    // Nothing is lost with a pod that has no state: it need not wait five minutes for its node.
    pod_template["spec"]["tolerations"] = ["not-ready", "unreachable"]
        .iter()
        .map(|trouble| {
            json!({
                "key": format!("node.kubernetes.io/{trouble}"),
                "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS,
            })
        })
        .collect();
    Object::new(
        platform,
        unit.component,
        Kind::Deployment,
        &unit.name,
        json!({"spec": {
            "replicas": unit.pods,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(platform.name(), unit.component)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}},
            "template": pod_template,
        }}),
    )
}

/// A unit's StatefulSet. All pods start at once: they find each other by themselves.
pub(crate) fn stateful_set(
    platform: &Platform,
    unit: &Unit,
    facts: &Facts,
    service: &str,
    template: Template,
) -> Object {
    Object::new(
        platform,
        unit.component,
        Kind::StatefulSet,
        &unit.name,
        json!({"spec": {
            "serviceName": service,
            "replicas": facts.pods(unit),
            "revisionHistoryLimit": 3,
            "podManagementPolicy": "Parallel",
            // The operator replaces the pods: it knows which of them leads, and that no other stateful part of the platform is at it.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": selector(platform.name(), unit.component)},
            // Scaling in keeps volumes: growing again finds the data. A StatefulSet that is deleted keeps them as well: where
            // they are to go with the TaskPlatform, the operator makes that one their owner.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": template.value(platform, unit),
            "volumeClaimTemplates": facts.storage(unit).iter().map(volume_claim).collect::<Vec<_>>(),
        }}),
    )
}

/// Over the nodes as evenly as they allow, but never at the price of not running. Pods of the former version do not count: the new ones
/// would be spread badly once those are gone.
fn spread(platform: &Platform, unit: &Unit) -> Value {
    json!([{
        "maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(platform.name(), unit.component)},
        "matchLabelKeys": [unit.workload.revision_label()],
    }])
}

/// Away from the component's other pods. Zones are named here and not among the spread constraints: the scheduler takes a node that
/// lacks the label of one soft constraint out of all of them, and would put everything on one node. Nodes are named again since the two
/// together outweigh whatever else the scheduler prefers a node for.
fn affinity(platform: &Platform, unit: &Unit) -> Value {
    let away = |topology: &str| {
        json!({"weight": 100, "podAffinityTerm": {
            "topologyKey": topology,
            "labelSelector": {"matchLabels": selector(platform.name(), unit.component)},
            "matchLabelKeys": [unit.workload.revision_label()],
        }})
    };
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [away(HOST), away(ZONE)]}})
}

/// A pod's security context.
pub fn pod_security_context() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// A container's security context.
pub fn security_context() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// Requests and limits. Memory is not shared: its limit is the request. CPU that others leave may be used, up to four
/// times the request, and to a core where that is less, so that small pods start in reasonable time.
pub(crate) fn resources(resources: Resources) -> Value {
    let limit = Cpu::millicores(resources.cpu.as_millicores().saturating_mul(4).max(1000));
    json!({
        "requests": {"cpu": resources.cpu.to_string(), "memory": resources.memory.to_string()},
        "limits": {"cpu": limit.to_string(), "memory": resources.memory.to_string()},
    })
}

/// An environment variable from the platform's credentials.
pub(crate) fn secret_env(platform: &Platform, facts: &Facts, variable: &str, key: &str) -> Value {
    json!({
        "name": variable,
        "valueFrom": {"secretKeyRef": {"name": platform.names().credentials(), "key": slot(key, facts.version(key))}},
    })
}

/// An environment variable from the platform's credentials, with the password before; there is none when that is not admitted any more.
pub(crate) fn former_secret_env(platform: &Platform, facts: &Facts, variable: &str, key: &str) -> Value {
    let slot = slot(key, facts.version(key).saturating_sub(1));
    json!({
        "name": variable,
        "valueFrom": {"secretKeyRef": {"name": platform.names().credentials(), "key": slot, "optional": true}},
    })
}

/// An environment variable from the pod's own description.
pub(crate) fn field_env(variable: &str, path: &str) -> Value {
    json!({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// A volume with one key of the platform's credentials, as a file of that name.
pub(crate) fn secret_volume(platform: &Platform, name: &str, key: &str) -> Value {
    json!({
        "name": name,
        "secret": {
            "secretName": platform.names().credentials(),
            "items": [{"key": key, "path": key}],
            "defaultMode": 0o440,
        },
    })
}

/// One disruption at a time. A single pod may be evicted too: a budget that no drain can meet helps nobody.
pub(crate) fn disruption_budget(platform: &Platform, component: Component) -> Object {
    Object::new(
        platform,
        component,
        Kind::PodDisruptionBudget,
        &platform.names().component(component),
        json!({"spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(platform.name(), component)},
            // Pods that are not ready serve nobody: they must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }}),
    )
}

/// A volume a pod, claimed by a StatefulSet.
fn volume_claim(storage: &Storage) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": storage.size.to_string()}},
    });
    if let Some(class) = &storage.class {
        spec["storageClassName"] = class.as_str().into();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
}

fn hash(configuration: &[&Value]) -> String {
    let mut hash = Sha256::new();
    for part in configuration {
        hash.update(part.to_string());
    }
    hash.finalize().iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
