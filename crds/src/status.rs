//! What the operator reports.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct TaskPlatformStatus {
    /// The generation of the spec that this status speaks of; -1 before the operator has seen any.
    pub observed_generation: i64,
    /// Ready, what it is made of, and what keeps it from being true.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStatus>,
    /// The autoscaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaler: Option<AutoscalerStatus>,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// PgBouncer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooler: Option<PoolerStatus>,
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// The cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<RedisStatus>,
    /// The session store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<RedisStatus>,
    /// The workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
    /// What goes on in several steps; absent while nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procedure: Option<ProcedureStatus>,
    /// The release of the operator that applied the spec last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// The place of a procedure: what goes on in several steps, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcedureStatus {
    /// What it is: Rollout, Eviction, Deletion, Switchover or Rotation.
    pub name: String,
    /// The step that it is at.
    pub step: String,
    /// Since when it has been at this step.
    pub since: String,
}

impl Default for TaskPlatformStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            api: None,
            autoscaler: None,
            gateway: None,
            pooler: None,
            database: None,
            cache: None,
            sessions: None,
            worker: None,
            procedure: None,
            release: None,
        }
    }
}

/// The conditions of Kubernetes, a map by type; without the API's long description of each field.
fn conditions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "description": "Ready, or what it speaks of."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so."},
                "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation of the spec that it speaks of."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status changed last."},
                "reason": {"type": "string", "description": "Why, in one word."},
                "message": {"type": "string", "description": "Why, in a sentence, and the way out."},
            },
        },
    })
}

/// The API's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiStatus {
    /// Instances that exist, for the autoscaler.
    pub replicas: i32,
    /// The label selector of the instances, for the autoscaler.
    pub selector: String,
    /// Ready and desired instances, such as 3/3.
    pub ready: String,
}

/// The gateway's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Ready and desired pods, such as 2/2.
    pub ready: String,
    /// Where the gateway answers: the load balancer's address, the port on every node, or the Service inside the cluster.
    pub address: String,
}

/// The autoscaler: what it sees, and between which uses it leaves things as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AutoscalerStatus {
    /// Instances that it asks for.
    pub desired: i32,
    /// The fewest that it may ask for.
    pub minimum: i32,
    /// The most that it may ask for.
    pub maximum: i32,
    /// When it changed their number last.
    pub last_scaled: Option<String>,
    /// What it goes by.
    pub metrics: Vec<ScalingMetric>,
}

/// A metric that the autoscaler goes by, as an average over the instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ScalingMetric {
    /// What is measured.
    pub metric: String,
    /// What it is measured in.
    pub unit: String,
    /// What it is now; absent while it is not known.
    pub current: Option<i64>,
    /// Below it instances are removed, if every other metric is below its own.
    pub below: i32,
    /// What the autoscaler aims at.
    pub target: i32,
    /// Above it instances are added.
    pub above: i32,
}

/// PgBouncer's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolerStatus {
    /// Ready and desired pods, such as 2/2.
    pub ready: String,
    /// The connections of each pod that answers.
    pub instances: Vec<PoolerInstance>,
}

/// A PgBouncer's connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolerInstance {
    /// The pod.
    pub pod: String,
    /// Clients that are connected.
    pub clients: i32,
    /// Of those, clients that wait for a connection to PostgreSQL.
    pub waiting: i32,
    /// How long the first of them has waited (PgBouncer's maxwait).
    pub max_wait_milliseconds: i64,
    /// Connections to PostgreSQL in use.
    pub servers_busy: i32,
    /// Connections to PostgreSQL that are not in use.
    pub servers_idle: i32,
}

/// The workers' pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Ready and desired pods, such as 1/1.
    pub ready: String,
}

/// PostgreSQL's members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Ready and desired members, such as 4/4.
    pub ready: String,
    /// The pod of the primary; empty while there is none.
    pub primary: String,
    /// The timeline of the primary: it rises with each failover.
    pub timeline: Option<i64>,
    /// Replicas that stream from the primary.
    pub streaming_replicas: i32,
    /// The last ten changes of the primary, wanted or not; the last of all is the last here.
    pub failovers: Vec<Failover>,
    /// The members as Patroni sees them.
    pub members: Vec<DatabaseMember>,
}

/// A change of the primary, wanted or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Failover {
    /// When the new primary took over.
    pub time: String,
    /// The pod of the new primary.
    pub primary: String,
    /// The pod of the primary before; empty where it is not known any more.
    pub former: String,
    /// Why, as far as is known.
    pub cause: FailoverCause,
    /// The timeline of the new primary.
    pub timeline: i64,
    /// For how long nobody led, as the poolers saw it: from the last answer of the former primary to the first of the new one. Absent where
    /// none of them has seen it.
    pub unled_milliseconds: Option<i64>,
    /// Of these, until the new primary was seen to hold the lead; the rest is its promotion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_milliseconds: Option<i64>,
    /// For how long users who waited for a change of a task got none, as the gateway's pods saw it. Absent where nobody waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwritten_milliseconds: Option<i64>,
    /// How many bytes of WAL the former primary had at least that the new one has not: with quorum commit, of changes that were never
    /// acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_bytes: Option<i64>,
}

/// Why the primary has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverCause {
    /// Nobody saw it.
    #[default]
    Unknown,
    /// It was wanted, by a person or the operator.
    Switchover,
    /// The former primary's pod was deleted.
    PodReplaced,
    /// The former primary's container has ended.
    ContainerEnded,
    /// Nothing on the former primary's node answered.
    NodeLost,
}

impl FailoverCause {
    /// All that there are.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Switchover, Self::PodReplaced, Self::ContainerEnded, Self::NodeLost];
}

/// A member of the PostgreSQL cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DatabaseMember {
    /// The pod.
    pub pod: String,
    /// primary or replica.
    pub role: String,
    /// Such as running, streaming or starting.
    pub state: String,
    /// The timeline that it is on.
    pub timeline: Option<i64>,
    /// How many bytes of WAL a replica is behind; absent for the primary, and while it is not known.
    pub lag_bytes: Option<i64>,
    /// The size of its volume's file system in bytes, which may be the node's disk; absent while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_size_bytes: Option<i64>,
    /// How much of it is used, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_used_percent: Option<i32>,
    /// In how many days it is full at the rate of the last day; absent where it does not fill up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_full_in_days: Option<i32>,
}

/// A Redis Cluster's nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisStatus {
    /// Ready and desired nodes, such as 6/6.
    pub ready: String,
    /// Slots that a master serves, of 16384.
    pub slots: i32,
    /// The pods of the masters.
    pub masters: Vec<String>,
    /// The nodes of each shard, the master first.
    pub nodes: Vec<RedisNode>,
}

/// A node of a Redis Cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisNode {
    /// The pod.
    pub pod: String,
    /// The shard, from 0 in the order of their slots.
    pub shard: i32,
    /// master or replica.
    pub role: String,
    /// serving; of a replica: in sync or not in sync.
    pub state: String,
    /// Of a master: the slots that it serves.
    pub slots: Option<i32>,
    /// Of a master: the memory that it uses, in whole MiB.
    pub used_memory_bytes: Option<i64>,
    /// Of a master: the memory that its data may take; absent without a limit.
    pub max_memory_bytes: Option<i64>,
}
