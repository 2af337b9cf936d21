//! What a user asks for. The numbers are the scalability plan's; a comment names its section.
//!
//! A field is here only when it works.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Count, Cpu, Duration, Percent, Rate, Size, TaskPlatformStatus};

pub(crate) const PATH_PATTERN: &str = "^/[-._~/A-Za-z0-9]*$";

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

/// The task API's Deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Api {
    /// The number of instances now. Leave it out: the autoscaler writes it, through the scale subresource. It starts at
    /// scaling.minInstances and is kept within scaling.minInstances and scaling.maxInstances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Count<1, 1000>>,
    /// The image to run instead of the operator's own release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What each instance gets.
    pub resources: Resources,
}

impl Default for Api {
    fn default() -> Self {
        Self { replicas: None, image: None, resources: Resources::new(500, 256) }
    }
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
    const fn new(millicores: u64, mebibytes: u64) -> Self {
        Self { cpu: Cpu::millicores(millicores), memory: Size::mebibytes(mebibytes) }
    }
}

/// A volume a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0", "a volume cannot shrink: keep the size, or create a TaskPlatform with smaller volumes and move the data there"),
    ("has(self.class) == has(oldSelf.class) && (!has(self.class) || self.class == oldSelf.class)", "a volume cannot change its class: keep the class, or create a TaskPlatform with the other class and move the data there"),
])))]
pub struct Storage {
    /// The size of each volume, such as 100Gi. It can grow, where the storage class allows expansion; it never shrinks.
    pub size: Size,
    /// The StorageClass. Left out, the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
}

impl Storage {
    const fn new(gibibytes: u64) -> Self {
        Self { size: Size::gibibytes(gibibytes), class: None }
    }
}

/// Bounds and rules of the autoscaler (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.minInstances <= self.maxInstances", "minInstances must not be above maxInstances: lower the one or raise the other"),
    ("self.scaleDown.threshold < self.targetCPU && self.targetCPU < self.scaleUp.threshold", "the thresholds enclose the target: choose scaleDown.threshold < targetCPU < scaleUp.threshold"),
])))]
pub struct Scaling {
    /// The fewest instances of the API.
    pub min_instances: Count<1, 1000>,
    /// The most instances of the API.
    pub max_instances: Count<1, 1000>,
    /// The CPU use to aim at, in percent of the request.
    #[serde(rename = "targetCPU")]
    pub target_cpu: Percent,
    /// The memory use to aim at, in percent of the request.
    pub target_memory: Percent,
    /// The requests a second and instance to aim at. In force where the cluster serves custom metrics.
    #[serde(rename = "targetRPS")]
    pub target_rps: Count<1, 1_000_000>,
    /// When and how fast instances are added.
    pub scale_up: ScaleUp,
    /// When and how fast instances are removed.
    pub scale_down: ScaleDown,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min_instances: Count::clamped(3),
            max_instances: Count::clamped(50),
            target_cpu: Count::clamped(70),
            target_memory: Count::clamped(80),
            target_rps: Count::clamped(1000),
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown::default(),
        }
    }
}

/// When and how fast instances are added (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.period) <= duration('1h')", "period is at most 1h, the longest stabilization window of a HorizontalPodAutoscaler"),
    ("duration(self.cooldown) >= duration('1s') && duration(self.cooldown) <= duration('30m')", "cooldown is from 1s to 30m, the range of a HorizontalPodAutoscaler's policy"),
])))]
pub struct ScaleUp {
    /// CPU use above which instances are added, in percent of the request.
    pub threshold: Percent,
    /// How long the need must last: the lowest recommendation within this time counts.
    pub period: Duration,
    /// The time within which at most `increment` instances are added.
    pub cooldown: Duration,
    /// How many instances are added at most within `cooldown`.
    pub increment: Count<1, 1000>,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            threshold: Count::clamped(80),
            period: Duration::seconds(60),
            cooldown: Duration::seconds(300),
            increment: Count::clamped(2),
        }
    }
}

/// When and how fast instances are removed (plan 1.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.period) <= duration('1h')", "period is at most 1h, the longest stabilization window of a HorizontalPodAutoscaler"),
    ("duration(self.cooldown) >= duration('1s') && duration(self.cooldown) <= duration('30m')", "cooldown is from 1s to 30m, the range of a HorizontalPodAutoscaler's policy"),
])))]
pub struct ScaleDown {
    /// CPU use below which instances are removed, in percent of the request.
    pub threshold: Percent,
    /// How long the surplus must last: the highest recommendation within this time counts.
    pub period: Duration,
    /// The time within which at most `decrement` instances are removed.
    pub cooldown: Duration,
    /// How many instances are removed at most within `cooldown`.
    pub decrement: Count<1, 1000>,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            threshold: Count::clamped(30),
            period: Duration::seconds(300),
            cooldown: Duration::seconds(600),
            decrement: Count::clamped(1),
        }
    }
}

/// The nginx gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    /// What the gateway is made of.
    #[serde(rename = "type")]
    pub kind: GatewayType,
    /// How many gateway pods run.
    pub replicas: Count<1, 100>,
    /// How the gateway is reached from outside the cluster.
    pub service: GatewayService,
    /// How many requests a client address may send (plan 3.3); what exceeds a limit is answered with 429.
    pub rate_limits: RateLimits,
    /// When an instance of the API gets requests (plan 3.1).
    pub health_check: HealthCheck,
    /// What each gateway pod gets.
    pub resources: Resources,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            kind: GatewayType::Nginx,
            replicas: Count::clamped(2),
            service: GatewayService::default(),
            rate_limits: RateLimits::default(),
            health_check: HealthCheck::default(),
            resources: Resources::new(1000, 256),
        }
    }
}

/// What the gateway is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayType {
    /// nginx pods that the operator runs.
    #[default]
    Nginx,
}

/// The Service in front of the gateway's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.nodePort) || self.type != 'ClusterIP'", "nodePort needs a Service of type NodePort or LoadBalancer: set type, or leave nodePort out"),
])))]
pub struct GatewayService {
    /// The type of the Service.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// The port on every node. Left out, the cluster chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<Count<1, 65535>>,
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// The cloud's load balancer; the client's address is kept.
    #[default]
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// Inside the cluster only.
    ClusterIP,
}

/// Requests that one client address may send (plan 3.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Of whatever is neither authentication nor the API.
    pub global: Rate,
    /// Of authentication: /api/auth/.
    pub auth: RateLimit,
    /// Of the API: /api/.
    pub api: RateLimit,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            global: Rate::PerSecond(100),
            auth: RateLimit { rate: Rate::PerMinute(5), burst: Count::clamped(10) },
            api: RateLimit { rate: Rate::PerSecond(1000), burst: Count::clamped(2000) },
        }
    }
}

/// A rate, and how far it may be exceeded for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second (1000r/s) or a minute (5r/m).
    pub rate: Rate,
    /// Requests that may come at once above the rate; they are served without delay.
    pub burst: Count<0, 1_000_000>,
}

/// When an instance of the API gets requests (plan 3.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.interval) >= duration('1s') && duration(self.timeout) >= duration('1s')", "interval and timeout are at least 1s"),
    ("duration(self.timeout) <= duration(self.interval)", "timeout must not be above interval: lower the one or raise the other"),
])))]
pub struct HealthCheck {
    /// The path that is asked for.
    #[schemars(length(max = 256), regex(pattern = PATH_PATTERN))]
    pub path: String,
    /// The time between two checks.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Checks in a row that must succeed before an instance gets requests.
    pub healthy_threshold: Count<1, 100>,
    /// Checks in a row that must fail before an instance gets no more requests.
    pub unhealthy_threshold: Count<1, 100>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/api/health".to_owned(),
            interval: Duration::seconds(30),
            timeout: Duration::seconds(10),
            healthy_threshold: Count::clamped(2),
            unhealthy_threshold: Count::clamped(3),
        }
    }
}

/// PostgreSQL: one primary and its read replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Database {
    /// Streaming replicas beside the primary: they serve reads, and one of them takes over when the primary is lost.
    pub read_replicas: Count<0, 15>,
    /// How far a replica may be behind the primary, in bytes of its log. One that is further behind is told as not replicating.
    pub max_replica_lag: Size,
    /// The volume of each member.
    pub storage: Storage,
    /// What each member gets. Memory settings such as `shared_buffers` follow from it.
    pub resources: Resources,
    /// Settings of postgresql.conf, by name. They come before the ones that follow from the resources. Names and values
    /// that PostgreSQL 17 cannot use are refused; names with a dot belong to extensions and are not checked.
    #[schemars(extend("maxProperties" = 200))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.all(name, name.matches('^[a-z][a-z0-9_.]{0,62}$'))", "names of PostgreSQL settings are lower-case letters, digits, underscores and dots, such as work_mem"),
        ("['listen_addresses', 'port', 'data_directory', 'hba_file', 'ident_file', 'config_file', 'unix_socket_directories', 'cluster_name', 'primary_conninfo', 'primary_slot_name', 'hot_standby', 'wal_level', 'wal_log_hints', 'recovery_target_timeline', 'restore_command', 'archive_mode', 'archive_command', 'synchronous_standby_names', 'ssl', 'shared_preload_libraries'].all(name, !(name in self))", "this setting belongs to the operator or to Patroni (listen_addresses, port, wal_level, hot_standby, synchronous_standby_names, …): leave it out"),
    ])))]
    pub parameters: BTreeMap<String, Parameter>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            read_replicas: Count::clamped(3),
            max_replica_lag: Size::mebibytes(64),
            storage: Storage::new(100),
            resources: Resources::new(4000, 16 << 10),
            parameters: BTreeMap::new(),
        }
    }
}

/// The value of a PostgreSQL setting, as text: numbers and switches in quotes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Parameter(#[schemars(length(max = 1024))] pub String);

/// PgBouncer (plan 2.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.minPoolSize <= self.defaultPoolSize", "minPoolSize must not be above defaultPoolSize: lower the one or raise the other"),
])))]
pub struct Pooler {
    /// How many PgBouncer pods run.
    pub replicas: Count<1, 100>,
    /// When a server connection is given back to the pool.
    pub pool_mode: PoolMode,
    /// Server connections that a pod keeps at most to each database.
    pub default_pool_size: Count<1, 1000>,
    /// Server connections that a pod keeps at least to each database.
    pub min_pool_size: Count<0, 1000>,
    /// Server connections beyond defaultPoolSize that a pod opens when clients have waited for reservePoolTimeout.
    pub reserve_pool_size: Count<0, 1000>,
    /// How long a client waits before the reserve is used.
    pub reserve_pool_timeout: Duration,
    /// Client connections that a pod accepts at most.
    pub max_client_connections: Count<1, 100_000>,
    /// The age at which a server connection is closed once it is idle.
    pub server_lifetime: Duration,
    /// How long a server connection may idle before it is closed.
    pub server_idle_timeout: Duration,
    /// How long opening a server connection may take.
    pub server_connect_timeout: Duration,
    /// How long to wait before trying again after opening a server connection failed.
    pub server_login_retry: Duration,
    /// How long a query may take; 0s is without limit.
    pub query_timeout: Duration,
    /// How long a query may wait for a server connection; 0s is without limit.
    pub query_wait_timeout: Duration,
    /// How long a client may idle; 0s is without limit.
    pub client_idle_timeout: Duration,
    /// How long a client may take to log in.
    pub client_login_timeout: Duration,
    /// What each pod gets. PgBouncer uses one core at most.
    pub resources: Resources,
}

impl Default for Pooler {
    fn default() -> Self {
        Self {
            replicas: Count::clamped(2),
            pool_mode: PoolMode::Transaction,
            default_pool_size: Count::clamped(25),
            min_pool_size: Count::clamped(10),
            reserve_pool_size: Count::clamped(5),
            reserve_pool_timeout: Duration::seconds(3),
            max_client_connections: Count::clamped(10_000),
            server_lifetime: Duration::seconds(3600),
            server_idle_timeout: Duration::seconds(600),
            server_connect_timeout: Duration::seconds(15),
            server_login_retry: Duration::seconds(15),
            query_timeout: Duration::seconds(0),
            query_wait_timeout: Duration::seconds(120),
            client_idle_timeout: Duration::seconds(0),
            client_login_timeout: Duration::seconds(60),
            resources: Resources::new(1000, 256),
        }
    }
}

/// When a server connection is given back to the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When the transaction ends.
    #[default]
    Transaction,
}

/// The Redis Cluster that holds what can be computed again (plan 4.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.localTTL) >= duration('1s')", "localTTL is at least 1s"),
    ("duration(self.localTTL) <= duration(self.ttl)", "localTTL must not be above ttl: lower the one or raise the other"),
    ("self.shards >= oldSelf.shards", "shards cannot be taken away: keep the number, or create a TaskPlatform with fewer"),
])))]
pub struct Cache {
    /// Masters, each with its part of the 16384 slots. Fewer than three cannot elect a new master.
    pub shards: Count<3, 100>,
    /// Replicas of each master; one of them takes over when it is lost.
    pub replicas_per_shard: Count<0, 5>,
    /// How long the cluster keeps what the API has put into it (plan 4.1).
    pub ttl: Duration,
    /// How long each instance of the API keeps it in its own memory besides (plan 4.1).
    #[serde(rename = "localTTL")]
    pub local_ttl: Duration,
    /// What each node gets. Three fifths of the memory above 32 MiB hold data.
    pub resources: Resources,
    /// The volume of each node.
    pub storage: Storage,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: Count::clamped(3),
            replicas_per_shard: Count::clamped(1),
            ttl: Duration::seconds(300),
            local_ttl: Duration::seconds(60),
            resources: Resources::new(1000, 4 << 10),
            storage: Storage::new(10),
        }
    }
}

/// The Redis Cluster that holds the users' sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.shards >= oldSelf.shards", "shards cannot be taken away: keep the number, or create a TaskPlatform with fewer"),
])))]
pub struct Sessions {
    /// Masters, each with its part of the 16384 slots. Fewer than three cannot elect a new master.
    pub shards: Count<3, 100>,
    /// Replicas of each master; one of them takes over when it is lost.
    pub replicas_per_shard: Count<0, 5>,
    /// How long a session lasts (plan 3.1).
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("duration(self) >= duration('1m')", "a session lasts at least 1m"),
    ])))]
    pub ttl: Duration,
    /// What each node gets. Two fifths of the memory above 16 MiB hold data: rewriting the append-only file takes as much again.
    pub resources: Resources,
    /// The volume of each node.
    pub storage: Storage,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            shards: Count::clamped(3),
            replicas_per_shard: Count::clamped(1),
            ttl: Duration::seconds(86400),
            resources: Resources::new(500, 1 << 10),
            storage: Storage::new(10),
        }
    }
}

/// The API's work beside requests: events, summaries, partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// How many workers run; they share the work. One is enough for the documented load, another takes over at once when
    /// it is lost.
    pub replicas: Count<1, 100>,
    /// What each worker gets.
    pub resources: Resources,
}

impl Default for Worker {
    fn default() -> Self {
        Self { replicas: Count::clamped(1), resources: Resources::new(250, 128) }
    }
}

/// CEL rules as a schema holds them: what must be true, and what to say when it is not.
fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}
