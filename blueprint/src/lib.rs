//! The pure function from a TaskPlatform to Kubernetes objects.
//!
//! `blueprint(platform, facts)` has no client, clock, randomness or I/O: the operator and the command line call the same
//! one, so that what is rendered is what is applied. A module a component says what that component is made of.

mod api;
pub mod applied;
mod autoscaler;
mod cost;
mod credentials;
mod database;
mod findings;
mod fingerprint;
mod footprint;
mod gateway;
mod network;
mod object;
mod plan;
mod platform;
mod pod;
mod pooler;
mod postgresql;
mod redis;
mod trouble;
mod worker;

pub use autoscaler::{Band, bands};
pub use cost::{Capacity, ComponentCost, Estimate, LEVELS, Level, NodePrice, PriceBook, Unpriced, estimate};
pub use credentials::{
    complete as complete_credentials, is_derived as is_derived_credential, keys as credential_keys,
    owner as credential_owner,
};
pub use database::dynamic_configuration;
pub use findings::{Code, Finding, InvalidNodes, Node, Nodes, Severity, UnknownCode, findings, fixed_instances};
pub use fingerprint::Fingerprint;
pub use footprint::{Load, footprint};
pub use object::{Component, Kind, MANAGED_BY, Object, labels, selector};
pub use plan::{Action, Change, Effect, FieldChange, SettingChange, Totals, differences, in_a_line, plan, settings};
pub use platform::{CustomMetric, Draft, Facts, Images, Invalid, Names, Platform, REQUESTS_PER_SECOND};
pub use pod::{pod_security_context, security_context};
pub use redis::RedisCluster;
pub use trouble::{Trouble, trouble};

/// Ports that more than one component, or the operator, has to know.
pub mod ports {
    /// The task API.
    pub const API: i32 = 8080;
    /// The task API's metrics.
    pub const API_METRICS: i32 = 9090;
    /// The gateway.
    pub const GATEWAY: i32 = 8080;
    /// The gateway's own state.
    pub const GATEWAY_STATUS: i32 = 8081;
    /// Where the gateway lets the operator ask whether the platform serves.
    pub const GATEWAY_OPERATOR: i32 = 8082;
    /// PgBouncer.
    pub const PGBOUNCER: i32 = 6432;
    /// PostgreSQL.
    pub const POSTGRESQL: i32 = 5432;
    /// Patroni's REST API.
    pub const PATRONI: i32 = 8008;
    /// Redis.
    pub const REDIS: i32 = 6379;
    /// The bus between the nodes of a Redis Cluster.
    pub const REDIS_BUS: i32 = 16379;
}

/// The objects that make up a platform, in the order in which they are applied: what others refer to comes first, and
/// workloads come after their configuration, so that none starts with an old one.
pub fn blueprint(platform: &Platform, facts: &Facts) -> Vec<Object> {
    let mut objects: Vec<Object> = [
        database::objects(platform, facts),
        pooler::objects(platform, facts),
        redis::objects(platform, facts, RedisCluster::Cache),
        redis::objects(platform, facts, RedisCluster::Sessions),
        api::objects(platform, facts),
        worker::objects(platform, facts),
        autoscaler::objects(platform, facts),
        gateway::objects(platform, facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    objects.sort_by_key(Object::kind);
    objects
}
