//! A Kubernetes object of the blueprint.

use kube::core::GroupVersionKind;
use serde_json::{Map, Value, json};
use taskplatform_crds::DeletionPolicy;

use crate::{Component, Platform};

/// The value of the label `app.kubernetes.io/managed-by`, and the field manager of every server-side apply.
pub const MANAGED_BY: &str = "taskplatform-operator";

/// An object as it is sent to the API server, without its owner: only a running operator knows that one.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    kind: Kind,
    value: Value,
    is_owned: bool,
}

/// The kinds that a platform is made of, in the order in which they are applied.
#[expect(missing_docs, reason = "the variants are Kubernetes' own names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    NetworkPolicy,
    ServiceAccount,
    Role,
    RoleBinding,
    ConfigMap,
    Service,
    PodDisruptionBudget,
    StatefulSet,
    Deployment,
    HorizontalPodAutoscaler,
}

impl Kind {
    /// Every kind, in the order in which they are applied.
    pub const ALL: [Self; 10] = [
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::ConfigMap,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
    ];

    /// Group, version and kind.
    pub fn group_version_kind(self) -> GroupVersionKind {
        let (group, version) = match self {
            Self::ServiceAccount | Self::ConfigMap | Self::Service => ("", "v1"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1"),
            Self::Role | Self::RoleBinding => ("rbac.authorization.k8s.io", "v1"),
            Self::PodDisruptionBudget => ("policy", "v1"),
            Self::StatefulSet | Self::Deployment => ("apps", "v1"),
            Self::HorizontalPodAutoscaler => ("autoscaling", "v2"),
        };
        GroupVersionKind::gvk(group, version, self.name())
    }

    /// The kind's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::StatefulSet => "StatefulSet",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }
}

impl Object {
    /// An object of a component: `content` is everything but apiVersion, kind and metadata.
    pub(crate) fn new(platform: &Platform, component: Component, kind: Kind, name: &str, content: Value) -> Self {
        let gvk = kind.group_version_kind();
        let mut value = json!({
            "apiVersion": gvk.api_version(),
            "kind": gvk.kind,
            "metadata": {
                "name": name,
                "namespace": platform.namespace(),
                "labels": labels(platform.name(), component),
            },
        });
        if let (Value::Object(value), Value::Object(content)) = (&mut value, content) {
            value.extend(content);
        }
        Self { kind, value, is_owned: true }
    }

    /// The same, but kept with the volumes: where these stay when the TaskPlatform is deleted, it does, too.
    pub(crate) fn kept_with_volumes(mut self, platform: &Platform) -> Self {
        self.is_owned = platform.spec().deletion_policy == DeletionPolicy::Delete;
        self
    }

    /// Whether it goes with its TaskPlatform.
    pub const fn is_owned(&self) -> bool {
        self.is_owned
    }

    /// The object's kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The component that the object belongs to.
    pub fn component(&self) -> &str {
        self.value["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap_or_default()
    }

    /// The object as JSON.
    pub const fn value(&self) -> &Value {
        &self.value
    }
}

/// The labels of every object of a component.
pub fn labels(platform: &str, component: Component) -> Map<String, Value> {
    let mut labels = selector(platform, component);
    labels.insert("app.kubernetes.io/part-of".into(), "taskplatform".into());
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
    labels
}

/// The labels that select a component's pods.
pub fn selector(platform: &str, component: Component) -> Map<String, Value> {
    [("name", "taskplatform"), ("instance", platform), ("component", component.name())]
        .into_iter()
        .map(|(key, value)| (format!("app.kubernetes.io/{key}"), Value::from(value)))
        .collect()
}
