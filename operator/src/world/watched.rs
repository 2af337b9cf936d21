//! What is watched.

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::{
    ResourceExt,
    core::{ApiResource, DynamicObject},
    runtime::watcher,
};
use serde_json::{Map, Value, json};
use taskplatform_blueprint::{Component, Kind, MANAGED_BY};

use super::store::Place;

/// The blueprint's kinds, the pods and volume claims that come of them, and what the API server answers to a StatefulSet that may not make
/// its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Watched {
    Object(Kind),
    Pod,
    Claim,
    /// The last event of each StatefulSet that tells so; a Deployment says it in its status.
    Refusal,
}

impl Watched {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Object).chain([Self::Pod, Self::Claim, Self::Refusal])
    }

    /// Whether platforms are looked after without it: then only what it tells is missing.
    pub(crate) const fn is_optional(self) -> bool {
        matches!(self, Self::Refusal)
    }

    pub(crate) fn api_resource(self) -> ApiResource {
        match self {
            Self::Object(kind) => ApiResource::from_gvk(&kind.group_version_kind()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Refusal => ApiResource::erase::<Event>(&()),
        }
    }

    /// What to watch of the kind: by the labels that tell what is a platform's. A StatefulSet gives its claims only those that it selects its
    /// pods by. Pages are small: each is held in memory as text and as objects.
    pub(super) fn config(self) -> watcher::Config {
        let config = watcher::Config::default().page_size(50);
        match self {
            Self::Object(_) | Self::Pod => {
                config.labels(&format!("app.kubernetes.io/name=taskplatform,app.kubernetes.io/managed-by={MANAGED_BY}"))
            }
            Self::Claim => config.labels("app.kubernetes.io/name=taskplatform"),
            Self::Refusal => config.fields("involvedObject.kind=StatefulSet,reason=FailedCreate"),
        }
    }

    /// The namespace and name of the platform that an object belongs to.
    pub(super) fn place_of(self, object: &DynamicObject) -> Option<Place> {
        let platform = match self {
            // An event has no labels, but the StatefulSet's name ends in its component's.
            Self::Refusal => {
                let set = object.data["involvedObject"]["name"].as_str()?;
                let mut names = Component::all().map(Component::name);
                names.find_map(|name| set.strip_suffix(name)?.strip_suffix('-'))?
            }
            _ => object.labels().get("app.kubernetes.io/instance")?,
        };
        Some((object.namespace()?, platform.to_owned()))
    }

    /// The name under which an object is kept: of the events of one StatefulSet the last counts.
    pub(super) fn name_of(self, object: &DynamicObject) -> String {
        match self {
            Self::Refusal => object.data["involvedObject"]["name"].as_str().unwrap_or_default().to_owned(),
            _ => object.name_any(),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.name(),
            Self::Pod => "Pod",
            Self::Claim => "PersistentVolumeClaim",
            Self::Refusal => "Event",
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
            Self::Claim => &[&["spec", "resources"], &["spec", "storageClassName"], &["status"]],
            Self::Refusal => &[&["message"]],
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
        let kept = if kept.is_empty() { Value::Null } else { Value::Object(kept) };
        let is_read = match self {
            // Of the Services only those are read that are reached from outside the cluster.
            Self::Object(Kind::Service) => {
                kept["status"]["loadBalancer"]["ingress"].is_array() || kept["spec"]["ports"][0]["nodePort"].is_number()
            }
            _ => true,
        };
        if is_read { kept } else { Value::Null }
    }
}
