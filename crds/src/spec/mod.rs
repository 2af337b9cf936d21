//! What a user asks for. The numbers are the scalability plan's; a comment names its section. Each part's fields are in its file.
//!
//! A field is here only when it works.

mod api;
mod cache;
mod database;
mod gateway;
mod pooler;
mod scaling;
mod sessions;
mod worker;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use api::Api;
pub use cache::Cache;
pub use database::{Autogrow, Database, DatabaseStorage, Durability, Parameter};
pub(crate) use gateway::PATH_PATTERN;
pub use gateway::{Gateway, GatewayService, GatewayType, HealthCheck, RateLimit, RateLimits, ServiceType};
pub use pooler::{PoolMode, Pooler};
pub use scaling::{ScaleDown, ScaleUp, Scaling};
pub use sessions::Sessions;
pub use worker::Worker;

use crate::{Cpu, Size, TaskPlatformStatus};

/// A whole, highly available platform for a task API. An empty spec is the documented platform.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taskplatform.dev",
    version = "v1alpha1",
    kind = "TaskPlatform",
    plural = "taskplatforms",
    shortname = "tp",
    category = "all",
    namespaced,
    status = "TaskPlatformStatus",
    derive = "PartialEq",
    cel,
    doc = "A whole, highly available platform for a task API: gateway, autoscaled API, PgBouncer, PostgreSQL with read replicas, Redis Clusters for cache and sessions, workers. An empty spec is the documented platform.",
    scale(
        spec_replicas_path = ".spec.api.replicas",
        status_replicas_path = ".status.api.replicas",
        label_selector_path = ".status.api.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "State",
        type_ = "string",
        description = "What it waits for, or that it serves",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "API", type_ = "string", description = "API instances, ready/desired", json_path = ".status.api.ready"),
    printcolumn(name = "Gateway", type_ = "string", description = "Gateway pods, ready/desired", json_path = ".status.gateway.ready"),
    printcolumn(name = "Database", type_ = "string", description = "PostgreSQL members, ready/desired", json_path = ".status.database.ready"),
    printcolumn(name = "Cache", type_ = "string", description = "Cache nodes, ready/desired", json_path = ".status.cache.ready"),
    printcolumn(name = "Sessions", type_ = "string", description = "Session nodes, ready/desired", json_path = ".status.sessions.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Primary",
        type_ = "string",
        description = "The pod of the PostgreSQL primary",
        json_path = ".status.database.primary",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$')")
        .message("the name begins the names of Services and pods: use at most 32 lower-case letters, digits and dashes, beginning with a letter")
)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TaskPlatformSpec {
    /// Whether the platform is only looked at: while this is true nothing is applied, and nothing is done in its parts.
    pub paused: bool,
    /// The task API itself.
    pub api: Api,
    /// How many instances of the API run, and when that number changes (plan 1.1).
    pub scaling: Scaling,
    /// The nginx gateway, the only way in.
    pub gateway: Gateway,
    /// PostgreSQL: one primary and its read replicas, run by Patroni.
    pub database: Database,
    /// PgBouncer, between the API and PostgreSQL (plan 2.3).
    pub pooler: Pooler,
    /// The Redis Cluster that holds what can be computed again.
    pub cache: Cache,
    /// The Redis Cluster that holds the users' sessions: never evicted, and written to disk.
    pub sessions: Sessions,
    /// The API's work beside requests: it relays events, refreshes the summaries and keeps partitions.
    pub worker: Worker,
    /// What becomes of the volumes, and of the passwords that open them, when this TaskPlatform is deleted.
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of volumes when their TaskPlatform is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes and credentials stay: a TaskPlatform of the same name takes them up again.
    #[default]
    Retain,
    /// Volumes and credentials are deleted, and their data with them.
    Delete,
}

/// What each pod of a component gets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU that is reserved for each pod, in thousandths of a core (500m) or cores: 2, or with a fraction, which needs
    /// quotes, "0.5". A pod may use four times as much, and at least a core, while the node has it to spare.
    pub cpu: Cpu,
    /// Memory that each pod has to itself, such as 512Mi; more it does not get. A number without a unit counts bytes.
    pub memory: Size,
}

impl Resources {
    pub(super) const fn new(millicores: u64, mebibytes: u64) -> Self {
        Self { cpu: Cpu::millicores(millicores), memory: Size::mebibytes(mebibytes) }
    }
}

/// What holds for every volume.
const VOLUME_RULES: [(&str, &str); 2] = [
    (
        "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
        "a volume cannot shrink: keep the size, or create a TaskPlatform with smaller volumes and move the data there",
    ),
    (
        "has(self.class) == has(oldSelf.class) && (!has(self.class) || self.class == oldSelf.class)",
        "a volume cannot change its class: keep the class, or create a TaskPlatform with the other class and move the data there",
    ),
];

/// A volume a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&VOLUME_RULES)))]
pub struct Storage {
    /// The size of each volume, such as 100Gi. It can grow, where the storage class allows expansion; it never shrinks.
    pub size: Size,
    /// The StorageClass. Left out, the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
}

impl Storage {
    pub(super) const fn new(gibibytes: u64) -> Self {
        Self { size: Size::gibibytes(gibibytes), class: None }
    }
}

/// CEL rules as a schema holds them: what must be true, and what to say when it is not.
fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}
