//! What is watched.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};
use taskplatform_blueprint::{Kind, MANAGED_BY};

/// The blueprint's kinds, and the pods and volume claims that come of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Watched {
    Object(Kind),
    Pod,
    Claim,
}

impl Watched {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Object).chain([Self::Pod, Self::Claim])
    }

    pub(crate) fn api_resource(self) -> ApiResource {
        match self {
            Self::Object(kind) => ApiResource::from_gvk(&kind.group_version_kind()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        }
    }

    /// The labels that tell what is a platform's. A StatefulSet gives its claims only those that it selects its pods by.
    pub(crate) fn labels(self) -> String {
        match self {
            Self::Object(_) | Self::Pod => {
                format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/managed-by={MANAGED_BY}")
            }
            Self::Claim => "app.kubernetes.io/name=taskplatform".to_owned(),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.name(),
            Self::Pod => "Pod",
            Self::Claim => "PersistentVolumeClaim",
        }
    }

    /// What is read of an object of this kind; nothing of most.
    pub(super) fn data(self, object: &mut DynamicObject) -> Value {
        let paths: &[&[&str]] = match self {
            Self::Object(Kind::StatefulSet) => &[&["spec", "replicas"], &["spec", "volumeClaimTemplates"], &["status"]],
            Self::Object(Kind::Deployment) => &[&["spec", "replicas"], &["status"]],
            Self::Object(Kind::HorizontalPodAutoscaler) => &[&["spec", "behavior"], &["status"]],
            Self::Object(Kind::Service) => &[&["spec", "ports"], &["status"]],
            Self::Object(_) => &[],
            Self::Pod => &[
                &["spec", "nodeName"],
                &["status", "podIP"],
                &["status", "conditions"],
                &["status", "containerStatuses"],
            ],
            Self::Claim => &[&["spec", "resources"], &["status"]],
        };
        let mut kept = Map::new();
        for path in paths {
            match path {
                [whole] => _ = kept.insert((*whole).to_owned(), object.data[*whole].take()),
                [outer, inner] => {
                    let value = object.data[*outer][*inner].take();
                    kept.entry(*outer).or_insert_with(|| json!({}))[*inner] = value;
                }
                _ => {}
            }
        }
        if kept.is_empty() { Value::Null } else { Value::Object(kept) }
    }
}
