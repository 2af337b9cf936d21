//! What is kept of an object.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt, core::DynamicObject};
use serde_json::Value;
use taskplatform_blueprint::{Component, Fingerprint, applied::APPLIED};
use taskplatform_crds::TaskPlatform;

use super::Watched;

/// The annotation of a pod with the last time that somebody asked to evict it.
pub(crate) const EVICTED: &str = "taskplatform.dev/evicted";

/// The ordinal at the end of the name of a StatefulSet's pod, or of its claim.
pub(crate) fn ordinal(name: &str) -> Option<i32> {
    name.rsplit('-').next()?.parse().ok()
}

/// An object of a platform: enough to tell whether it is as it was applied, and what is read of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Child {
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    /// Versions of one kind can be compared as numbers.
    pub(crate) version: u64,
    pub(crate) generation: i64,
    pub(crate) component: Option<Component>,
    pub(crate) owners: Box<[Owner]>,
    /// When it should be gone, where it is being deleted.
    pub(crate) ends_by: Option<Timestamp>,
    /// When it was deleted, where it is not gone yet.
    pub(crate) deleted_at: Option<Timestamp>,
    /// Of a pod of a StatefulSet: the revision of the template that it was made from.
    pub(crate) revision: Option<Box<str>>,
    /// Of a pod: when somebody asked last to evict it.
    pub(crate) evicted: Option<Timestamp>,
    /// The digest of what was applied last.
    pub(crate) applied: Option<Box<str>>,
    /// What the API server keeps of it; of pods and claims, which are not applied, nothing.
    pub(crate) kept: Kept,
    /// Of a pod: its Kubernetes node, its IP address, and whether it is ready.
    node: Option<Box<str>>,
    ip: Option<std::net::IpAddr>,
    ready: bool,
    /// What is read of it, as it stands in the object: parts of `spec` and `status`. As text: a tree takes far more memory.
    data: Box<str>,
}

/// What the API server keeps of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kept {
    /// Its values.
    Values(Fingerprint),
    /// The hash of its values, of one that was found to be as it was applied: nobody asks for single ones any more.
    Compared(u64),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Values(Fingerprint::default())
    }
}

impl Kept {
    /// What tells it from another content.
    pub(crate) fn hash(&self) -> u64 {
        match self {
            Self::Values(values) => {
                let mut hasher = DefaultHasher::new();
                values.hash(&mut hasher);
                hasher.finish()
            }
            Self::Compared(hash) => *hash,
        }
    }
}

/// An owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: OwnerKind,
    pub(crate) uid: Box<str>,
}

/// What an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerKind {
    TaskPlatform,
    StatefulSet,
    Other,
}

impl Child {
    pub(super) fn of(watched: Watched, mut object: DynamicObject) -> Self {
        let kept = match watched {
            Watched::Object(_) => Kept::Values(Fingerprint::of(&object)),
            Watched::Pod | Watched::Claim | Watched::Refusal => Kept::default(),
        };
        let pod = if watched == Watched::Pod { object.data.clone() } else { Value::Null };
        let data = watched.data(&mut object);
        let component = object.labels().get("app.kubernetes.io/component");
        let ends_by = object.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let grace = SignedDuration::from_secs(object.metadata.deletion_grace_period_seconds.unwrap_or_default());
        Self {
            name: watched.name_of(&object).into(),
            uid: object.uid().unwrap_or_default().into(),
            version: object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            component: component.and_then(|name| Component::find(name)),
            owners: owners(&object),
            ends_by,
            deleted_at: ends_by.and_then(|end| end.checked_sub(grace).ok()),
            revision: object.labels().get("controller-revision-hash").map(|revision| revision.as_str().into()),
            evicted: object.annotations().get(EVICTED).and_then(|time| time.parse().ok()),
            applied: object.annotations().get(APPLIED).map(|digest| digest.as_str().into()),
            kept,
            node: pod["spec"]["nodeName"].as_str().map(Box::from),
            ip: pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()),
            ready: is_ready(&pod),
            data: if data.is_null() { Box::default() } else { data.to_string().into() },
        }
    }

    /// What is read of it; nothing of most.
    pub(crate) fn data(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_default()
    }

    /// Whether two versions differ in nothing that is kept of them.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            name,
            uid,
            version: _,
            generation,
            component,
            owners,
            ends_by,
            deleted_at,
            revision,
            evicted,
            applied,
            kept,
            node,
            ip,
            ready,
            data,
        } = self;
        name == &other.name
            && uid == &other.uid
            && generation == &other.generation
            && component == &other.component
            && owners == &other.owners
            && ends_by == &other.ends_by
            && deleted_at == &other.deleted_at
            && revision == &other.revision
            && evicted == &other.evicted
            && applied == &other.applied
            && kept.hash() == other.kept.hash()
            && node == &other.node
            && ip == &other.ip
            && ready == &other.ready
            && data == &other.data
    }

    /// The same, known to be as it was applied.
    pub(super) fn compared(&self) -> Self {
        Self { kept: Kept::Compared(self.kept.hash()), ..self.clone() }
    }

    /// Whether this is the version after one that is as it was applied, and nothing has changed that would be applied.
    pub(super) fn is_as(&self, compared: &Self) -> bool {
        matches!(compared.kept, Kept::Compared(_))
            && self.applied == compared.applied
            && self.kept.hash() == compared.kept.hash()
    }

    /// Whether the TaskPlatform of this uid owns it.
    pub(crate) fn is_owned_by(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| *owner.uid == *uid)
    }

    /// Whether it is being deleted.
    pub(crate) const fn is_ending(&self) -> bool {
        self.ends_by.is_some()
    }

    /// Its IP address: that of a pod that has one and is not about to go.
    pub(crate) fn address(&self) -> Option<std::net::IpAddr> {
        self.ip.filter(|_| !self.is_ending())
    }

    /// The same, also while it is about to go.
    pub(crate) const fn last_address(&self) -> Option<std::net::IpAddr> {
        self.ip
    }

    /// The Kubernetes node of a pod.
    pub(crate) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Whether a pod is ready.
    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub(crate) fn owners(object: &impl ResourceExt) -> Box<[Owner]> {
    let owners = object.owner_references().iter().map(|owner| Owner {
        kind: match owner.kind.as_str() {
            _ if owner.kind == TaskPlatform::kind(&()) && owner.api_version == TaskPlatform::api_version(&()) => {
                OwnerKind::TaskPlatform
            }
            "StatefulSet" => OwnerKind::StatefulSet,
            _ => OwnerKind::Other,
        },
        uid: owner.uid.as_str().into(),
    });
    owners.collect()
}
