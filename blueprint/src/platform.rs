//! A TaskPlatform whose numbers fit together, and what the cluster adds to it.

use std::{collections::BTreeMap, ops::Deref};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};
use taskplatform_crds::{
    Count, SWITCHOVER, Size, Storage, Switchover, SwitchoverError, TaskPlatform, TaskPlatformSpec, TaskPlatformStatus,
};

use crate::{Component, Finding, Images, Unit, Versions, findings};

/// A TaskPlatform of which nobody knows yet whether it can be built.
#[derive(Clone, Debug)]
pub struct Draft {
    name: String,
    namespace: String,
    uid: String,
    generation: i64,
    spec: TaskPlatformSpec,
    status: Option<TaskPlatformStatus>,
    switchover: Option<Result<Switchover, SwitchoverError>>,
}

/// A TaskPlatform that can be built: its budgets hold.
#[derive(Clone, Debug)]
pub struct Platform(Draft);

/// Why a TaskPlatform cannot be built, although each of its fields is well-formed: the budgets that do not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid(pub Vec<Finding>);

impl From<&TaskPlatform> for Draft {
    fn from(platform: &TaskPlatform) -> Self {
        Self {
            name: platform.name_any(),
            namespace: platform.namespace().unwrap_or_else(|| "default".to_owned()),
            uid: platform.uid().unwrap_or_default(),
            generation: platform.metadata.generation.unwrap_or_default(),
            spec: platform.spec.clone(),
            status: platform.status.clone(),
            switchover: platform.annotations().get(SWITCHOVER).map(|wish| wish.parse()),
        }
    }
}

impl Platform {
    /// Checks what no single field can tell.
    ///
    /// # Errors
    /// The budgets that do not hold, and the ways out.
    pub fn new(platform: &TaskPlatform) -> Result<Self, Invalid> {
        Draft::from(platform).validate()
    }
}

impl Deref for Platform {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl Draft {
    /// Checks what no single field can tell.
    ///
    /// # Errors
    /// The budgets that do not hold, and the ways out.
    pub fn validate(self) -> Result<Platform, Invalid> {
        let errors = findings::errors(&self);
        if errors.is_empty() { Ok(Platform(self)) } else { Err(Invalid(errors)) }
    }

    /// The TaskPlatform's name: every object's name begins with it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the TaskPlatform and of its objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What tells it from another TaskPlatform of the same name; empty where it comes from a file.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The generation of the spec; 0 where it comes from a file.
    pub const fn generation(&self) -> i64 {
        self.generation
    }

    /// What the user asked for.
    pub const fn spec(&self) -> &TaskPlatformSpec {
        &self.spec
    }

    /// What was reported of it last.
    pub const fn status(&self) -> Option<&TaskPlatformStatus> {
        self.status.as_ref()
    }

    /// The wish that another member of the database leads, if somebody has it.
    ///
    /// # Errors
    /// When the annotation cannot be read.
    pub fn switchover(&self) -> Result<Option<&Switchover>, &SwitchoverError> {
        self.switchover.as_ref().map(Result::as_ref).transpose()
    }

    /// A reference to it, for the objects that it owns.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: TaskPlatform::api_version(&()).into_owned(),
            kind: TaskPlatform::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// A reference to it, for events.
    pub fn object_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(TaskPlatform::api_version(&()).into_owned()),
            kind: Some(TaskPlatform::kind(&()).into_owned()),
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// The names of what others refer to.
    pub fn names(&self) -> Names<'_> {
        Names { platform: &self.name }
    }

    /// The API's instances: what the autoscaler wrote or, where nobody has, those that run; within the autoscaler's bounds.
    pub fn api_instances(&self, running: Option<i32>) -> i32 {
        let scaling = &self.spec.scaling;
        let (min, max) = (scaling.min_instances.get(), scaling.max_instances.get());
        let wanted = self.spec.api.replicas.map(Count::get).or(running);
        wanted.map_or(min, |instances| instances.clamp(min, max.max(min)))
    }

    /// PostgreSQL's members: the primary and its read replicas.
    pub const fn database_members(&self) -> i32 {
        self.spec.database.read_replicas.get() + 1
    }
}

/// The names of the objects that others refer to.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    platform: &'a str,
}

impl Names<'_> {
    /// The main object of a component.
    pub fn component(self, component: Component) -> String {
        format!("{}-{component}", self.platform)
    }

    /// The Secret with every password of the platform.
    pub fn credentials(self) -> String {
        format!("{}-credentials", self.platform)
    }
}

/// Where a cluster serves the custom metric `http_requests_per_second` of pods, if it does.
pub const REQUESTS_PER_SECOND: CustomMetric = CustomMetric {
    versions: ["custom.metrics.k8s.io/v1beta2", "custom.metrics.k8s.io/v1beta1"],
    resource: "pods/http_requests_per_second",
};

/// A metric that an API of the cluster may serve.
#[derive(Clone, Copy, Debug)]
pub struct CustomMetric {
    /// The API's group and version, the newest first.
    pub versions: [&'static str; 2],
    /// Its name among the API's resources.
    pub resource: &'static str,
}

/// What the blueprint has to know of the cluster and of the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The images that run.
    pub images: Images,
    /// Whether the cluster serves the custom metric `http_requests_per_second` of pods: the autoscaler follows it only
    /// then, since a metric that is missing would block every scale-down.
    pub requests_per_second: bool,
    /// The namespace in which the operator runs: its pods may reach what they look after.
    pub operator_namespace: String,
    /// The instances of the API that run: they stay where the spec does not say how many.
    pub api_instances: Option<i32>,
    /// How often each password was changed.
    pub versions: Versions,
    /// Pods that units keep although the spec wants fewer, by the units' names: those beyond it still have what nobody else has.
    pub kept_pods: BTreeMap<String, i32>,
    /// The sizes of volumes that are, or are to be, larger than the spec says, by the units' names: they never shrink, and a new pod's is as large as those
    /// beside it.
    pub volumes: BTreeMap<String, Size>,
}

impl Default for Facts {
    /// A cluster that has everything, and the release of this version.
    fn default() -> Self {
        Self {
            images: Images::default(),
            requests_per_second: true,
            operator_namespace: "taskplatform-system".to_owned(),
            api_instances: None,
            versions: Versions::new(),
            kept_pods: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }
}

impl Facts {
    /// How often a password was changed.
    pub(crate) fn version(&self, key: &str) -> u32 {
        self.versions.get(key).copied().unwrap_or_default()
    }

    /// How many pods of a unit run.
    pub fn pods(&self, unit: &Unit) -> i32 {
        self.kept_pods.get(&unit.name).copied().unwrap_or_default().max(unit.pods)
    }

    /// The volume of each of a unit's pods.
    pub(crate) fn storage(&self, unit: &Unit) -> Option<Storage> {
        let storage = unit.storage.clone()?;
        let size = self.volumes.get(&unit.name).copied().map_or(storage.size, |size| size.max(storage.size));
        Some(Storage { size, ..storage })
    }
}
