//! What a part consists of: workloads whose pods are alike.

use taskplatform_crds::{Resources, Storage};

use crate::{Component, Draft, Kind, parts::PARTS};

/// One of those that a part consists of, such as a Redis Cluster or the API's Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The part that it belongs to.
    pub component: Component,
    /// The name of its workload.
    pub name: String,
    /// What keeps its pods.
    pub workload: Workload,
    /// How many pods the spec wants.
    pub pods: i32,
    /// What each of them asks for.
    pub resources: Resources,
    /// The volume of each; none where it keeps nothing.
    pub storage: Option<Storage>,
}

/// What keeps the pods of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Any pod does what any other does.
    Deployment,
    /// Each pod has a name and a volume of its own.
    StatefulSet,
}

impl Workload {
    /// The kind of its object.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Deployment => Kind::Deployment,
            Self::StatefulSet => Kind::StatefulSet,
        }
    }

    /// The label by which Kubernetes tells pods of one template from those of the next.
    pub(crate) const fn revision_label(self) -> &'static str {
        match self {
            Self::Deployment => "pod-template-hash",
            Self::StatefulSet => "controller-revision-hash",
        }
    }
}

impl Unit {
    /// The kind of its workload.
    pub const fn kind(&self) -> Kind {
        self.workload.kind()
    }

    /// Whether its pods keep something that is lost with them.
    pub fn is_stateful(&self) -> bool {
        self.workload == Workload::StatefulSet
    }
}

/// The units of all parts, with so many instances of the API; what others depend on comes first.
pub fn units(platform: &Draft, instances: i32) -> Vec<Unit> {
    PARTS.iter().flat_map(|part| part.units(platform, instances)).collect()
}
