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
}

impl Default for TaskPlatformStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            api: None,
            gateway: None,
            pooler: None,
            database: None,
            cache: None,
            sessions: None,
            worker: None,
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
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
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

/// PgBouncer's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolerStatus {
    /// Ready and desired pods, such as 2/2.
    pub ready: String,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// Replicas that stream from the primary.
    pub streaming_replicas: i32,
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
}
